"""Commands `airunner up` and `down`: a broker and an agent of this machine in the background, under one supervisor.

```
 airunner up ──► supervisor ──┬─► airunner broker
   (waits for "ready")        └─► airunner agent
```

`up` makes missing keys, starts the supervisor in a session of its own, and returns when both are ready. The supervisor
holds a lock on `$AIRUNNER_HOME/cluster/lock` while it lives, so there is one of each home; it starts what has ended
again, and ends both on SIGTERM, which `down` sends. What they print is in `$AIRUNNER_HOME/cluster/log`.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer

from airunner.client.localcluster import State
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError
from airunner.transport.endpoints import DEFAULT_BROKER

EVENTS_PORT: Final = 7071  # beside the default endpoint, as `airunner broker` has it
STOP_S: Final = 30  # seconds for the supervisor to end after SIGTERM: both children end within 2 s
PORT_HEX: Final = 16
LISTENING: Final = "0A"  # state of a socket in /proc/net/tcp


def up_command(
    spawn: Annotated[int, typer.Option("--spawn", min=1, max=256, help="Number of jobs to run at once.")] = 4,
    listen: Annotated[str, typer.Option(metavar="ENDPOINT", help="Endpoint of the broker.")] = DEFAULT_BROKER,
    events: Annotated[
        str | None,
        typer.Option(
            metavar="ENDPOINT",
            help="Endpoint of the broker's live events.",
            show_default="port 7071; of another --listen a free one",
        ),
    ] = None,
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Address of the broker's /health and /metrics.")
    ] = "127.0.0.1:0",
) -> None:
    """Start a broker and an agent on this machine in the background; if they run already, only say so.

    Missing keys are made. Jobs, logs and keys are in $AIRUNNER_HOME, by default ~/.airunner.
    """
    from airunner.certs.init import init
    from airunner.certs.ownership import own_home
    from airunner.certs.secretfile import make_folder
    from airunner.protocol.durations import of_flag
    from airunner.transport.endpoints import split_endpoint, split_http

    home = own_home(os.environ)
    state = State(home.root)
    if running := state.running():
        _say(f"the cluster of {home.root} is up already: broker {running.broker}", *_use(running.broker))
        return
    if events is None:
        port = EVENTS_PORT if listen == DEFAULT_BROKER else 0
        events = f"{listen.rpartition(':')[0]}:{port}"
    of_flag("--listen", split_endpoint, listen)
    of_flag("--events", split_endpoint, events)
    split_http(http)
    for flag, address in (("--listen", listen), ("--events", events), ("--http", http)):
        _refuse_taken(flag, address)
    init(home)
    make_folder(state.folder)
    broker, _ = start(state, (listen, events, http), spawn)
    _say(f"the cluster of {home.root} is up: broker {broker}; log {state.log}", *_use(broker))


def down_command() -> None:
    """Stop the broker and the agent that `airunner up` has started; jobs that run are given back to the queue."""
    from airunner.certs.ownership import own_home

    state = State(own_home(os.environ).root)
    running = state.running()
    if running is None:
        _say(f"no cluster of {state.home} is up")
        return
    try:
        process = os.pidfd_open(running.pid)
    except ProcessLookupError:
        process = None
    if process is not None:
        os.kill(running.pid, signal.SIGTERM)
        ended, _, _ = select.select([process], [], [], STOP_S)
        os.close(process)
        if not ended:
            raise OperatorError(f"process {running.pid} has not ended after {STOP_S} s; see {state.log}")
    _say(f"the cluster of {state.home} is down")


def start(
    state: State,
    addresses: tuple[str, str, str],
    spawn: int,
    environ: Mapping[str, str] | None = None,
    parent: int | None = None,
) -> tuple[str, subprocess.Popen[bytes]]:
    """Start the supervisor, and return the broker's endpoint and the process once all is ready.

    The broker listens at the addresses for requests, events and HTTP. The cluster ends when the other end of the pipe
    `parent` is closed. Raises `OperatorError`.
    """
    read, write = os.pipe()
    with os.fdopen(read, "rb") as answer:
        descriptors = [write, *(() if parent is None else (parent,))]
        with state.log.open("ab") as log:
            words = [str(state.folder), str(write), str(spawn), *addresses, *map(str, descriptors[1:])]
            supervisor = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "airunner.supervisor", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                pass_fds=descriptors,
                cwd="/",
                start_new_session=True,
            )
        os.close(write)
        kind, _, words_said = answer.read().decode(errors="replace").partition(" ")
    if kind != "ready":
        supervisor.wait()
        raise OperatorError(
            f"the cluster did not start: {words_said or 'its supervisor has died'}; its log is {state.log}",
            exit_code=EXIT_UNAVAILABLE,
        )
    return words_said, supervisor


def _use(broker: str) -> list[str]:
    """Return what to do next. Commands find the broker by the lock, unless a setting names another one."""
    option = "" if os.environ.get("AIRUNNER_BROKER", broker) == broker else f" --broker {broker}"
    return [f"try `airunner submit{option} -- echo hello`; `airunner down` stops it"]


def _refuse_taken(flag: str, address: str) -> None:
    """Refuse an address whose port is taken, and name the process that has it. Raises `OperatorError`."""
    host, _, digits = address.rpartition(":")
    port = int(digits) if digits.isdecimal() else 0
    inode = _listener(port) if port else ""
    if inode:
        instead = f"stop that, or give another port with {flag} {host}:PORT"
        raise OperatorError(f"port {port} is taken{_owner(inode)}: {instead}", exit_code=EXIT_UNAVAILABLE)


def _listener(port: int) -> str:
    """Return the inode of the socket that listens on a port of this machine, or an empty text."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        except OSError:
            continue
        for row in rows:
            if row[3] == LISTENING and int(row[1].rpartition(":")[2], PORT_HEX) == port:
                return row[9]
    return ""


def _owner(inode: str) -> str:
    """Return the process that has a socket, as ` by process 12 (airunner broker)`, if this user may see it."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            if any(str(link.readlink()) == f"socket:[{inode}]" for link in (folder / "fd").iterdir()):
                pid, words = folder.name, _command(folder.name)
                while "\n" in words:  # a program given with -c, as of our own children
                    pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
                    words = _command(pid)
                return f" by process {pid} ({words[:80]})"
        except OSError:
            continue
    return ""


def _command(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def _say(*lines: str) -> None:
    sys.stderr.write("".join(f"airunner: {line}\n" for line in lines))
