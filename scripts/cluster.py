"""Cluster of `make up` and `make down`: runs the Procfile's processes in the background, with $AIRUNNER_HOME."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

CHECKOUT: Final = Path(__file__).resolve().parents[1]
START_S: Final = "30"  # seconds for each broker to reply: a database has to start, too
STOP_S: Final = 15  # seconds for the cluster to end after SIGTERM, before SIGKILL
AGENT: Final = "local-agent"  # name of the agent's key, and of its home
QUEUE: Final = "default"  # queue of the Procfile's agent
AGENT_TTL: Final = "30d"  # life of the agent's token; each `up` makes a new one, so restart a cluster within 30 days


class Ports(NamedTuple):
    """Ports of the broker's three sockets."""

    requests: int = 7070
    events: int = 7071
    http: int = 8080

    @classmethod
    def free(cls) -> Ports:
        """Return three free ports."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            return cls(*(bound.getsockname()[1] for bound in sockets))


def procfile_environment(home: Path, ports: Ports) -> dict[str, str]:
    """Return the environment for the Procfile's processes and for their clients."""
    broker = f"tcp://127.0.0.1:{ports.requests}"
    return {
        **own_environment(home),
        "AIRUNNER_AGENT_HOME": str(agent_home(home)),
        "AIRUNNER_LISTEN": broker,
        "AIRUNNER_EVENTS": f"tcp://127.0.0.1:{ports.events}",
        "AIRUNNER_HTTP": f"127.0.0.1:{ports.http}",
        "AIRUNNER_BROKER": broker,
    }


def own_environment(home: Path) -> dict[str, str]:
    """Return this process's environment with `home`, and without any other installation's variables."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AIRUNNER_", "JWT_"))}
    ours |= {name: os.environ[name] for name in ("AIRUNNER_RUN_AS",) if name in os.environ}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**ours, "PATH": path, "AIRUNNER_HOME": str(home), "PYTHONUNBUFFERED": "1"}


def agent_home(home: Path, name: str = AGENT) -> Path:
    """Return the agent's own home: it has a key and a token, but not the key that signs tokens."""
    return home / name


def airunner(environ: Mapping[str, str], home: Path, *words: str, output: int | None = None) -> None:
    """Run an airunner command with a home. Raises `subprocess.CalledProcessError`."""
    there = {**environ, "AIRUNNER_HOME": str(home)}
    subprocess.run(["airunner", *words], env=there, check=True, stdout=sys.stderr if output is None else output)


def make_homes(home: Path, environ: Mapping[str, str], agents: Sequence[str] = (AGENT,)) -> None:
    """Make missing keys, a home for each agent, and a new token for each."""
    airunner(environ, home, "certs", "init")
    for name in agents:
        _make_agent_home(home, environ, name)


def _make_agent_home(home: Path, environ: Mapping[str, str], name: str) -> None:
    """Make the agent's key if it is missing, and a new token; its home links to the hooks and queue keys of `home`."""
    agents = agent_home(home, name)
    if not (agents / "certs" / "client.secret").exists():
        if not (home / "certs" / "clients" / f"{name}.secret").exists():
            airunner(environ, home, "certs", "add", name, "--role", "agent", "--queue", QUEUE)
        carried = home / f"{name}.keys"
        carried.unlink(missing_ok=True)
        airunner(environ, home, "certs", "export", name, "--output", str(carried))
        airunner(environ, agents, "certs", "import", str(carried))
        carried.unlink()
    for link, target in ((agents / "hooks", home / "hooks"), (agents / "certs/queues", home / "certs/queues")):
        if not link.is_symlink() and not link.exists():
            link.symlink_to(target)
    fresh = agents / ".token"
    fresh.unlink(missing_ok=True)
    token = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        rights = ("--role", "work", "--queue", QUEUE, "--ttl", AGENT_TTL)
        airunner(environ, home, "token", "--subject", name, *rights, output=token)
    finally:
        os.close(token)
    fresh.replace(agents / "token")


def stop(pid: int) -> None:
    """Stop a process: send SIGTERM, and SIGKILL to its group if it has not ended after `STOP_S`."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        os.kill(pid, signal.SIGTERM)
        ready, _, _ = select.select([descriptor], [], [], STOP_S)
        if not ready:
            os.killpg(pid, signal.SIGKILL)
    finally:
        os.close(descriptor)


def up(home: Path) -> int:
    """Start the cluster, and wait until its broker replies; return the exit code."""
    if is_up(home):
        return 1
    environ = procfile_environment(home, Ports())
    make_homes(home, environ)
    return start(home, environ, "Procfile", [environ["AIRUNNER_BROKER"]])


def is_up(home: Path) -> bool:
    """Return whether a cluster of this home is running; then say so."""
    if up := running(home) is not None:
        print(f"a cluster of {home} is already running; stop it with `make down`", file=sys.stderr)
    return up


def start(home: Path, environ: Mapping[str, str], procfile: str, brokers: Sequence[str]) -> int:
    """Start the processes of a Procfile, and wait until each broker replies; return the exit code."""
    log = home / "cluster.log"
    with log.open("ab") as output:
        honcho = subprocess.Popen(
            [sys.executable, "-m", "honcho", "--procfile", procfile, "start"],
            env=environ,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    lists = [["airunner", "list", "--broker", broker, "--connect-timeout", START_S] for broker in brokers]
    silent = any(
        subprocess.run(words, env=environ, check=False, stdout=subprocess.DEVNULL).returncode for words in lists
    )
    if silent or honcho.poll() is not None:
        stop(honcho.pid)
        print(f"the cluster did not start; see {log}", file=sys.stderr)
        return 1
    record(home).write_text(f"{honcho.pid}\n")
    print(f"the cluster is running; its log is {log}. To use it:\n")
    print(f"  export AIRUNNER_HOME={home} PATH={Path(sys.executable).parent}:$PATH")
    if len(brokers) > 1:
        print(f"  export AIRUNNER_BROKER={','.join(brokers)}")
    print("  airunner submit -- echo hello\n\nTo stop it: `make down`")
    return 0


def down(home: Path) -> int:
    """Stop the cluster; return the exit code."""
    pid = running(home)
    if pid is None:
        print(f"no cluster of {home} is running", file=sys.stderr)
        return 1
    stop(pid)
    record(home).unlink()
    print("the cluster is stopped")
    return 0


def record(home: Path) -> Path:
    """Return the file in which `up` records the process id for `down`."""
    return home / "cluster.pid"


def running(home: Path) -> int | None:
    """Return the process id that `up` recorded; None: it recorded none, or the process has ended."""
    try:
        pid = int(record(home).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if b"honcho" in words else None


def main() -> int:
    """Run `up` or `down`, as the first argument says; the home is $AIRUNNER_HOME or, by default, CHECKOUT/.airunner."""
    home = Path(os.environ.get("AIRUNNER_HOME") or CHECKOUT / ".airunner").absolute()
    return {"up": up, "down": down}[sys.argv[1]](home)


if __name__ == "__main__":
    sys.exit(main())
