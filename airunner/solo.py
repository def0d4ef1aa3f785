"""`airunner run`: one job with a cluster of its own, for as long as it runs.

A broker, an agent and a monitor in one process group, on keys and a store in a temporary folder: the same code as
anywhere, the same output, the same exit code. Nothing of it is left, however it ends; but SIGKILL leaves the folder
(`airunner-run-…`, 0700) until somebody runs the next one (`solohome`).

```
 airunner run ─┬─ airunner broker     SIGINT and SIGHUP are blocked in both: Ctrl-C is ours to act on,
  (the client) └─ airunner agent      and when we die the kernel tells them
```

Ctrl-C once cancels the job and shows it to its end; twice ends everything at once (see `interrupts`). Where the broker
or the agent dies, nobody is left to wait for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from airunner.client.cli.commands import EXIT_INTERRUPTED, RawOption, follow_job, split_operands
from airunner.interrupts import Interrupts
from airunner.protocol.errors import OperatorError
from airunner.protocol.job import DEPTH_MAX, ProcessType
from airunner.solohome import temporary_home
from airunner.transport.endpoints import require_loopback

if TYPE_CHECKING:
    from airunner.client.cli.console import Console
    from airunner.protocol.events import Event
    from airunner.protocol.job import JobSpec

READY: Final = "ready:"
STOP_S: Final = 15.0  # for an agent that has nothing more to do
LINES_KEPT: Final = 20
_ANYWHERE: Final = "tcp://127.0.0.1:0"
_CHILD: Final = """
import os, signal, sys
parent, path, *sys.argv[1:] = sys.argv[1:]
sys.path[:] = path.split(os.pathsep)
from airunner.agent.launcher.child.linux import call_me_when_my_parent_dies
call_me_when_my_parent_dies(signal.SIGKILL)
if os.getppid() != int(parent):
    sys.exit(1)
from airunner.__main__ import main
main()
"""
_OURS: Final = ("AIRUNNER_", "JWT_")  # variables that speak of another cluster


def run_command(
    ctx: typer.Context,
    operands: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REPOSITORY] [-- COMMAND ARG...]",
            help="What to clone, a URL or a folder (none: an empty workspace), and what to run in it.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-f", help="A job file, YAML or JSON; a flag beats it.", metavar="FILE")
    ] = None,
    commit: Annotated[
        str | None,
        typer.Option(help="What to check out: a hash, or the name of a branch or tag, or HEAD; overrides --branch."),
    ] = None,
    branch: Annotated[str | None, typer.Option(help="The branch or tag to check out.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable for the command; may be repeated.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A variable of yours for the command, kept out of the output; repeatable."),
    ] = None,
    secret_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="The same, but the variable holds the path of a file with the value; may be repeated.",
        ),
    ] = None,
    pty: Annotated[bool, typer.Option("--pty", help="Run it in a terminal.")] = False,
    terminal: Annotated[
        str | None, typer.Option(metavar="COLSxROWS", help="The terminal's size.", show_default="80x24")
    ] = None,
    timeout_seconds: Annotated[
        str | None,
        typer.Option(metavar="SECONDS", help="How long the command may run: 90, or 1h30m.", show_default="no bound"),
    ] = None,
    working_directory: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where to run, inside the checkout.", show_default="its top")
    ] = None,
    depth: Annotated[int | None, typer.Option(min=0, max=DEPTH_MAX, help="Commits of history to check out.")] = None,
    submodules: Annotated[
        bool | None, typer.Option("--submodules/--no-submodules", help="Check submodules out too.", show_default="no")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Record the console there too, as asciicast v3 for `asciinema play`.",
            show_default="none",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="None of airunner's own words on stderr.")] = False,
    raw: RawOption = False,
) -> None:
    """Run a job here and now, with no cluster: try what `submit` would do, and exit with its exit code.

    Ctrl-C cancels it; twice ends everything at once.
    """
    import anyio

    from airunner.client.cli.console import Console
    from airunner.client.cli.export import recording
    from airunner.client.cli.request import SubmitFlags, fields_of, hints_of
    from airunner.client.client import spec_of

    before, words = split_operands(operands or [], ctx.obj)
    flags = SubmitFlags(
        config=config,
        operands=before,
        words=words,
        commit=commit,
        branch=branch,
        env=env or (),
        secrets=secret or (),
        secret_files=secret_file or (),
        process_type=ProcessType.PTY if pty else None,
        terminal=terminal,
        timeout=timeout_seconds,
        working_directory=working_directory,
        depth=depth,
        submodules=submodules,
    )
    spec = spec_of(fields_of(flags))
    require_loopback([_ANYWHERE])
    console = Console(quiet=quiet, raw=raw)
    for hint in hints_of(flags):
        console.say(hint)
    with (
        recording(output, spec, console) as record,
        Interrupts() as interrupts,
        temporary_home() as home,
        _cluster(home, spec) as cluster,
    ):
        try:
            interrupts.follow()
            code = anyio.run(_follow, cluster, home, spec, console, json, record, interrupts)
        finally:
            interrupts.end()
        if code is None:
            raise typer.Exit(EXIT_INTERRUPTED)  # in here: nothing is waited for
    raise typer.Exit(code)


class _Part(NamedTuple):
    """One process of the cluster, the words of its ready line, and the last lines that it has said."""

    name: str
    pid: int
    words: list[str]
    said: deque[str]


async def _follow(
    cluster: Sequence[_Part],
    home: Path,
    spec: JobSpec,
    console: Console,
    json: bool,
    record: Callable[[Event], None] | None,
    interrupts: Interrupts,
) -> int | None:
    """Submit the job and show it to its end; the exit code, or None where everything is to end at once.

    Raises `OperatorError`, in a group: a part of the cluster has died.
    """
    import anyio

    from airunner.client.client import Client

    pressed = 0
    code = 1
    async with Client(_endpoint(cluster[0]), home=home) as client, anyio.create_task_group() as group:

        async def obey(job_id: str) -> None:
            nonlocal pressed
            await interrupts.next()
            pressed = 1
            console.say("cancelling; once more to end everything at once")
            group.start_soon(client.cancel, job_id)
            await interrupts.next()
            pressed = 2
            group.cancel_scope.cancel()

        for part in cluster:
            group.start_soon(_outlive, part)
        job = await client.submit(spec)
        group.start_soon(obey, job.id)
        code = await follow_job(client, job.id, console, json=json, monitor=True, record=record)
        group.cancel_scope.cancel()
    if pressed:
        return EXIT_INTERRUPTED if pressed == 1 else None
    return code


async def _outlive(part: _Part) -> None:
    """Raises `OperatorError` when it has died."""
    import anyio

    descriptor = os.pidfd_open(part.pid)
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    last = f"; the last it said: {part.said[-1].strip()}" if part.said else ""
    raise OperatorError(f"the {part.name} has died, and the job with it{last}", exit_code=1)


def _endpoint(broker: _Part) -> str:
    return broker.words[broker.words.index("requests") + 1]


@contextmanager
def _cluster(home: Path, spec: JobSpec) -> Generator[tuple[_Part, _Part]]:
    """A broker and an agent that are there while the block runs."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    environ["AIRUNNER_HOME"] = str(home)
    doors = ("--listen", _ANYWHERE, "--events", _ANYWHERE, "--http", "127.0.0.1:0", "--store", "memory:")
    with _running("broker", doors, environ) as broker:
        offered = [word for name in spec.secret_names if name not in spec.environment for word in ("--secret", name)]
        tags = [word for name, value in spec.require.items() for word in ("--tag", f"{name}={value}")]
        options = ("--queue", spec.queue, "--allow-local", "--mirror-gib", "0")
        with _running("agent", ("--broker", _endpoint(broker), *options, *offered, *tags), environ) as agent:
            yield broker, agent


@contextmanager
def _running(part: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Generator[_Part]:
    """One process of the cluster, from its ready line to its end."""
    path = os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])
    try:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            # -P: the folder that we are in is the job's, and no place to import from.
            (sys.executable, "-P", "-c", _CHILD, str(os.getpid()), path, part, *arguments),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert process.stderr is not None, "it was asked for"
    said: deque[str] = deque(maxlen=LINES_KEPT)
    try:
        for line in process.stderr:
            said.append(line)
            if READY in line:
                break
        else:
            raise OperatorError(f"the {part} did not start: {' '.join(said).strip()}", exit_code=1)
        # What it says from here on is read, and only the last of it kept: a full pipe would stop it.
        words = said.pop().split()
        Thread(target=said.extend, args=(process.stderr,), daemon=True).start()
        yield _Part(part, process.pid, words, said)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    finally:
        process.kill()
        process.wait()
