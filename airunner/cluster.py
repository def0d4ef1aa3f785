"""Commands `airunner up` and `down`: a broker, an agent and a web server of this machine, under one supervisor.

```
 airunner up ──► supervisor ──┬─► airunner broker
   (waits for "ready")        ├─► airunner agent
                              └─► airunner web (with the extra airunner-jobs[web])
```

`up` makes missing keys, starts the supervisor in a session of its own, and returns when all are ready. The supervisor
holds a lock on `$AIRUNNER_HOME/cluster/lock` while it lives, so there is one of each home; it starts what has ended
again, and ends all on SIGTERM, which `down` sends. What they print is in `$AIRUNNER_HOME/cluster/log`.
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

from airunner.certs.home import Home
from airunner.client.localcluster import Running, State
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError
from airunner.supervisor import OFF
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
    web: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the pages and the HTTP API, or `off`; they need the extra airunner-jobs[web].",
            show_default="127.0.0.1:8090; of another --listen a free port",
        ),
    ] = None,
) -> None:
    """Start a broker, an agent and a web server on this machine in the background; if they run already, only say so.

    Missing keys are made. Jobs, logs and keys are in $AIRUNNER_HOME, by default ~/.airunner. A link is printed that
    logs a browser in.
    """
    from airunner.certs.init import init
    from airunner.certs.ownership import own_home
    from airunner.certs.secretfile import make_folder
    from airunner.protocol.durations import of_flag
    from airunner.transport.endpoints import split_endpoint, split_http

    home = own_home(os.environ)
    state = State(home.root)
    if running := state.running():
        _say(f"the cluster of {home.root} is up already: broker {running.broker}", *_use(running, home))
        return
    if events is None:
        port = EVENTS_PORT if listen == DEFAULT_BROKER else 0
        events = f"{listen.rpartition(':')[0]}:{port}"
    of_flag("--listen", split_endpoint, listen)
    of_flag("--events", split_endpoint, events)
    split_http(http)
    for flag, address in (("--listen", listen), ("--events", events), ("--http", http)):
        _refuse_taken(flag, address)
    pages, lacking = _pages(web, listen)
    init(home)
    make_folder(state.folder)
    running, _ = start(state, (listen, events, http, pages), spawn)
    if pages != OFF and not running.web:
        lacking = [f"there are no pages: airunner web did not start; see {state.log}"]
    _say(f"the cluster of {home.root} is up: broker {running.broker}; log {state.log}", *lacking, *_use(running, home))


def down_command() -> None:
    """Stop what `airunner up` has started; jobs that run are given back to the queue."""
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
    addresses: tuple[str, str, str, str],
    spawn: int,
    environ: Mapping[str, str] | None = None,
    parent: int | None = None,
) -> tuple[Running, subprocess.Popen[bytes]]:
    """Start the supervisor, and return the cluster and the process once all is ready.

    The broker listens at the first addresses for requests, events and HTTP; the last is the web server's, or `OFF`. The
    cluster ends when the other end of the pipe `parent` is closed. Raises `OperatorError`.
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
    broker, _, web = words_said.partition(" ")
    return Running(supervisor.pid, broker, web), supervisor


def _pages(given: str | None, listen: str) -> tuple[str, list[str]]:
    """Return the address of the web server, or `OFF`, and a line if its usual port is taken. Raises `OperatorError`."""
    from airunner.client.web.origins import DEFAULT_LISTEN, EXTRA, is_installed, listened

    if given == OFF or (given is None and not is_installed()):
        return OFF, []
    if not is_installed():
        raise OperatorError(f"--web {given}: {EXTRA}")
    if given is not None:
        listened(given, "--web")
        _refuse_taken("--web", given)
        return given, []
    if listen != DEFAULT_BROKER:
        return "127.0.0.1:0", []
    try:
        _refuse_taken("--web", DEFAULT_LISTEN)
    except OperatorError as error:
        return OFF, [f"there are no pages: {error.message}"]
    return DEFAULT_LISTEN, []


def _use(running: Running, home: Home) -> list[str]:
    """Return what to do next. Commands find the broker by the lock, unless a setting names another one."""
    broker = running.broker
    option = "" if os.environ.get("AIRUNNER_BROKER", broker) == broker else f" --broker {broker}"
    lines = [f"try `airunner submit{option} -- echo hello`; `airunner down` stops it"]
    if running.web:
        from airunner.client.web.locallogin import local_link

        link = local_link(home, running.web)
        lines.append(f"in a browser: {link} (once, within 5 minutes; `airunner login-link` prints another)")
    return lines


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
