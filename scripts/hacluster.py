"""Cluster of `make up-ha`: PostgreSQL, two brokers and two agents of Procfile.ha on this machine.

```
$AIRUNNER_HOME
├── certs/               keys of the fleet; the brokers' homes link to it
├── broker-a/ broker-b/  a home for each broker, with its id
├── agent-a/  agent-b/   a home for each agent, with its key and token
└── postgres/            the server's socket and its data: closed to other users, so the server asks no password
```

Each process is started again when it ends: honcho alone would end the whole cluster with the first of them.
"""

from __future__ import annotations

import os
import pwd
import select
import shlex
import shutil
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
QUEUE: Final = "default"  # queue of the agents
AGENT_TTL: Final = "30d"  # life of an agent's token; each `up` makes a new one, so restart a cluster within 30 days
MAJOR_MIN: Final = 15  # oldest PostgreSQL that brokers use
DEBIAN: Final = Path("/usr/lib/postgresql")  # where Debian's packages keep the programs of each version
BROKERS: Final = ("a", "b")
AGENTS: Final = ("agent-a", "agent-b")
SOCKET_BYTES_MAX: Final = 107  # of a Unix socket's path
SERVER_USERS: Final = ("postgres", "nobody")  # PostgreSQL refuses to run as root; the first that exists runs it then
PEER: Final = "fleet"  # name on the allow-list of the key with which brokers connect to each other


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


PORTS: Final = (Ports(), Ports(7072, 7073, 8081))  # of the two brokers


class CannotStart(Exception):
    """Cluster that cannot be started; the text says what to do."""


def postgres_programs(environ: Mapping[str, str]) -> Path:
    """Find the folder of PostgreSQL's programs: on the PATH, or Debian's newest. Raises `CannotStart`."""
    found = shutil.which("postgres", path=environ.get("PATH"))
    folders = [Path(found).parent] if found else []
    numbered = [folder for folder in DEBIAN.glob("*/bin") if folder.parent.name.isdecimal()]
    folders += sorted(numbered, key=lambda folder: -int(folder.parent.name))
    for folder in folders:
        if all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb")):
            said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
            if int(said.split()[2].partition(".")[0]) >= MAJOR_MIN:
                return folder
    raise CannotStart(f"`make up-ha` needs PostgreSQL {MAJOR_MIN} or newer: run `apt-get install postgresql`")


def server_user() -> pwd.struct_passwd | None:
    """Return the user to run PostgreSQL as, if we are root; None: ourselves."""
    if os.geteuid():
        return None
    users = {user.pw_name: user for user in pwd.getpwall()}
    return next(users[name] for name in SERVER_USERS if name in users)


def ha_environment(home: Path, ports: tuple[Ports, Ports]) -> dict[str, str]:
    """Return the environment for the processes of Procfile.ha and for their clients. Raises `CannotStart`."""
    environ = own_environment(home)
    user = server_user()
    as_user = f"setpriv --reuid={user.pw_uid} --regid={user.pw_gid} --clear-groups" if user else ""
    folder = home / "postgres"
    for broker, own in zip(BROKERS, ports, strict=True):
        suffix = broker.upper()
        environ[f"AIRUNNER_LISTEN_{suffix}"] = f"tcp://127.0.0.1:{own.requests}"
        environ[f"AIRUNNER_EVENTS_{suffix}"] = f"tcp://127.0.0.1:{own.events}"
        environ[f"AIRUNNER_HTTP_{suffix}"] = f"127.0.0.1:{own.http}"
    return {
        **environ,
        "AIRUNNER_STORE": f"postgresql:///airunner?host={folder}&user=airunner",
        "AIRUNNER_BROKER": ",".join(brokers_of(environ)),
        "POSTGRES_BIN": str(postgres_programs(environ)),
        "POSTGRES_AS": as_user,
        "PGDATA": str(folder / "data"),
        "POSTGRES_SOCKETS": str(folder),
    }


def brokers_of(environ: Mapping[str, str]) -> list[str]:
    """Return the endpoints of the brokers."""
    return [environ[f"AIRUNNER_LISTEN_{broker.upper()}"] for broker in BROKERS]


def make_fleet(home: Path, environ: Mapping[str, str]) -> None:
    """Make what is missing: the homes of agents and brokers, and the database. Raises `CannotStart`."""
    if environ["POSTGRES_AS"] and not home.exists():
        home.mkdir(parents=True)
        home.chmod(0o711)  # the server's user enters it; the folders with keys are closed by themselves
    make_homes(home, environ, AGENTS)
    for broker in BROKERS:
        (home / f"broker-{broker}").mkdir(mode=0o700, exist_ok=True)
        link = home / f"broker-{broker}" / "certs"
        if not link.is_symlink():
            link.symlink_to("../certs")
    if PEER not in (home / "certs" / "allowed-clients").read_text():
        airunner(environ, home, "certs", "add", PEER, "--role", "broker")
    make_database(home / "postgres", environ)


def make_database(folder: Path, environ: Mapping[str, str]) -> None:
    """Make the server's folder with an empty database in it, unless it is there. Raises `CannotStart`."""
    if (folder / "data").exists():
        return
    if len(os.fsencode(folder / ".s.PGSQL.5432")) > SOCKET_BYTES_MAX:
        raise CannotStart(f"{folder} is too long a path for PostgreSQL's socket: set AIRUNNER_HOME to a shorter one")
    folder.mkdir(mode=0o700, exist_ok=True)
    as_user = environ["POSTGRES_AS"].split()
    if user := server_user():
        os.chown(folder, user.pw_uid, user.pw_gid)
        if subprocess.run([*as_user, "test", "-w", str(folder)], cwd="/", check=False).returncode:
            whose = f"the user {user.pw_name}, who runs PostgreSQL for root, cannot enter {folder}"
            remedy = f"run `chmod go+x {shlex.quote(str(folder.parent))}`, or set AIRUNNER_HOME to a folder elsewhere"
            raise CannotStart(f"{whose}: {remedy}")
    programs = Path(environ["POSTGRES_BIN"])
    words = ["--username=airunner", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
    making = folder / "new"  # renamed when it is whole: an interrupted one is made again
    shutil.rmtree(making, ignore_errors=True)
    _run([*as_user, str(programs / "initdb"), "-D", str(making), *words], environ)
    single = [*as_user, str(programs / "postgres"), "--single", "-D", str(making), "postgres"]
    _run(single, environ, "CREATE DATABASE airunner\n")
    making.rename(folder / "data")


def _run(words: Sequence[str], environ: Mapping[str, str], given: str = "") -> None:
    """Run a program of PostgreSQL's in /, which any user may enter. Raises `CannotStart`: it failed."""
    done = subprocess.run(words, env=environ, cwd="/", input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotStart(f"`{shlex.join(words)}` failed:\n{done.stderr.rstrip()}")


def own_environment(home: Path) -> dict[str, str]:
    """Return this process's environment with `home`, and without any other installation's variables."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AIRUNNER_", "JWT_"))}
    ours |= {name: os.environ[name] for name in ("AIRUNNER_RUN_AS",) if name in os.environ}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**ours, "PATH": path, "AIRUNNER_HOME": str(home), "PYTHONUNBUFFERED": "1"}


def agent_home(home: Path, name: str) -> Path:
    """Return the agent's own home: it has a key and a token, but not the key that signs tokens."""
    return home / name


def airunner(environ: Mapping[str, str], home: Path, *words: str, output: int | None = None) -> None:
    """Run an airunner command with a home. Raises `subprocess.CalledProcessError`."""
    there = {**environ, "AIRUNNER_HOME": str(home)}
    subprocess.run(["airunner", *words], env=there, check=True, stdout=sys.stderr if output is None else output)


def make_homes(home: Path, environ: Mapping[str, str], agents: Sequence[str]) -> None:
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


def is_up(home: Path) -> bool:
    """Return whether a cluster of this home is running; then say so."""
    if up := running(home) is not None:
        print(f"a cluster of Procfile.ha is already running in {home}; stop it with `make down`", file=sys.stderr)
    return up


def up(home: Path) -> int:
    """Start the cluster, and wait until both brokers reply; return the exit code."""
    try:
        environ = ha_environment(home, PORTS)
        if is_up(home):
            return 1
        make_fleet(home, environ)
    except CannotStart as error:
        print(error, file=sys.stderr)
        return 1
    return start(home, environ, brokers_of(environ))


def start(home: Path, environ: Mapping[str, str], brokers: Sequence[str]) -> int:
    """Start the processes of Procfile.ha, and wait until each broker replies; return the exit code."""
    log = home / "cluster.log"
    with log.open("ab") as output:
        honcho = subprocess.Popen(
            [sys.executable, "-m", "honcho", "--procfile", "Procfile.ha", "start"],
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
    print(f"  export AIRUNNER_BROKER={','.join(brokers)}")
    print("  airunner submit -- echo hello\n\nTo stop it: `make down`")
    return 0


def down(home: Path) -> int:
    """Stop the cluster if it runs; return the exit code."""
    if pid := running(home):
        stop(pid)
        record(home).unlink()
        print("the cluster of Procfile.ha is stopped")
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
