"""`airunner run`: broker, agent and client in one process, for one job, without a cluster, keys or a home.

Broker, agent and client are the usual code, on the in-process network and a store in memory. Only the launcher and its
keeper and job are other processes. No file is left behind, except after SIGKILL: the next `airunner run` of the same
user then removes the temporary folder (`airunner-run-…`, 0700; see `solohome`).

```
 airunner run: client ◄──► broker ◄──► agent ─── launcher ── keeper ── job
```

The first Ctrl-C cancels the job and shows it to its end; the second kills it and exits (see `interrupts`). Output
is written in a thread: a reader that pauses must not stop the agent from renewing its lease.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from airunner.client.cli.clientcommand import JsonOption, QuietOption, RawOption
from airunner.client.cli.commands import (
    ConfigOption,
    IgnoredOption,
    OperandsArgument,
    StdinOption,
    follow_job,
    is_typed,
    job_file_of,
    requested_job,
)
from airunner.client.cli.console import Console
from airunner.client.cli.interrupts import Interrupts
from airunner.client.cli.options import Given, with_job_options
from airunner.protocol.errors import OperatorError
from airunner.solofiles import Prepare, preparation, recorded_job, require_repeatable
from airunner.solohome import AGENT, temporary_home

if TYPE_CHECKING:
    from airunner.agent.agent import Agent
    from airunner.agent.home import LockedHome
    from airunner.agent.launcher.local import ChildLauncher
    from airunner.client.cli.sources import Sources
    from airunner.protocol.events import Event
    from airunner.protocol.fields import JobSpec
    from airunner.transport.memory import MemoryNetwork

VISIBILITY_MS: Final = 300_000  # of the only lease: the keeper ends the job if this process hangs for as long
INTERRUPTS: Final = 1_000  # signals that `run` waits for: it acts on two, and ignores the others
_OURS: Final = ("AIRUNNER_", "JWT_")  # prefixes of variables that configure airunner: the job does not inherit them
_log: Final = logging.getLogger("airunner.run")


@with_job_options
def run_command(
    ctx: typer.Context,
    operands: OperandsArgument = None,
    config: ConfigOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File in which to record the console too, as asciicast v3 for `asciinema play`.",
            show_default="none",
        ),
    ] = None,
    stdin: StdinOption = True,
    tree: Annotated[
        bool,
        typer.Option(
            "--tree",
            help="Run the working tree as it is, with uncommitted work: of the folder that is given as repository, or "
            "of this one.",
        ),
    ] = False,
    include_ignored: IgnoredOption = None,
    job: Annotated[
        str | None,
        typer.Option(
            metavar="JOB|FILE",
            help="Job to run again, which options and a command after -- override: of the cluster, or a file that "
            "`airunner export --format job` wrote, for which no broker is needed.",
            show_default="none",
        ),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    raw: RawOption = False,
    **fields: Given,
) -> None:
    """Run a job on this machine without a cluster, to try what `submit` would do, and exit with its exit code.

    Ctrl-C cancels the job and waits for its end; a second Ctrl-C kills it and exits.
    """
    from airunner.client.cli.export import recording
    from airunner.client.cli.stdin import stdin_for_job

    console = Console(quiet=quiet, raw=raw)
    file = job_file_of(config)
    asked = is_typed(ctx, "stdin")
    with recorded_job(job, tree=tree, config=config) as past:
        base = None if past is None else past.fields(os.environ)
        spec, sources = requested_job(
            console, ctx, operands, file and file.only(), fields, sized=past is None, tree=tree or None, base=base
        )
        if past is not None:
            require_repeatable(past, spec, os.environ)
        if spec.after:
            raise OperatorError("--after is for `airunner submit`: here is no other job to wait for")
        secrets = _secrets(spec, sources)
        given = past.stdin if past is not None and not asked else stdin_for_job(console, wanted=stdin, asked=asked)
        prepare = preparation(past, include_ignored or (), tree=tree)
        with recording(output, spec, console) as record, Interrupts() as interrupts:
            interrupts.follow(INTERRUPTS)
            with temporary_home() as home:
                follow = partial(_follow, spec, prepare, given, console, json, record, interrupts)
                try:
                    code = _run_job(home, spec, secrets, follow)
                finally:
                    interrupts.end()
    raise typer.Exit(code or console.exit_code if interrupts.number is None else interrupts.exit_code)


def _secrets(spec: JobSpec, sources: Sources) -> dict[str, str]:
    """Find the job's secrets in this environment. Raises `OperatorError` for a variable that is not set."""
    found: dict[str, str] = {}
    for field in ("secrets", "secret_files"):
        for number, name in enumerate(getattr(spec, field)):
            if name in spec.environment:
                continue
            if name not in os.environ:
                label = sources.label(field, number)
                raise OperatorError(f"{label}: there is no variable {name} in your environment; set it")
            found[name] = os.environ[name]
    return found


def _run_job(
    home: Path,
    spec: JobSpec,
    secrets: Mapping[str, str],
    follow: Callable[[MemoryNetwork], Awaitable[int]],
) -> int:
    """Run broker and agent while `follow` follows the job, and return the result of `follow`."""
    from airunner.agent.home import MARK_FILE, lock_home
    from airunner.agent.launcher.local import start_launcher

    locked = lock_home(home / AGENT)
    try:
        # First, because the launcher starts while this process imports the other modules.
        launcher = start_launcher([locked.running], mark=locked.mark, groups=locked.groups)

        import anyio

        code = anyio.run(_in_one_process, locked, launcher, spec, secrets, follow, home / "blobs")
        # The launcher has ended all processes with the mark: the folder's removal need not search for them.
        (locked.folder / MARK_FILE).unlink(missing_ok=True)
        return code
    finally:
        os.close(locked.descriptor)  # unlock the folder, so that the remaining files can be removed
        os.close(locked.running)


async def _in_one_process(
    locked: LockedHome,
    launcher: ChildLauncher,
    spec: JobSpec,
    secrets: Mapping[str, str],
    follow: Callable[[MemoryNetwork], Awaitable[int]],
    files: Path,
) -> int:
    import anyio

    from airunner.broker.blobs.address import open_blobs
    from airunner.broker.blobs.keeper import Blobs
    from airunner.broker.broker import Broker
    from airunner.broker.counts import Counts
    from airunner.broker.store.open import open_store
    from airunner.certs.authority import NoVerifier
    from airunner.transport.memory import MemoryNetwork
    from airunner.transport.ports import SYSTEM
    from airunner.transport.workthread import WorkThread

    network = MemoryNetwork()
    code = 1
    with closing(open_store("memory:")) as store, closing(WorkThread()) as thread, closing(WorkThread()) as other:
        blobs = Blobs(open_blobs(str(files)), [other])
        broker = Broker(store, network.router, network.publisher, NoVerifier(), SYSTEM, thread, Counts(), blobs=blobs)
        agent = _agent(locked, launcher, network, spec, secrets)
        try:
            async with anyio.create_task_group() as group:
                await group.start(broker.run)
                group.start_soon(launcher.watch)
                group.start_soon(agent.run)
                code = await follow(network)
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await launcher.aclose()
    return code


def _agent(
    locked: LockedHome, launcher: ChildLauncher, network: MemoryNetwork, spec: JobSpec, secrets: Mapping[str, str]
) -> Agent:
    """Build an agent with a single slot, which satisfies all requirements of the job."""
    from airunner.agent.agent import Agent
    from airunner.agent.attempt.surroundings import Surroundings
    from airunner.agent.checkout.repository import Rules
    from airunner.agent.launcher.offloading import offload
    from airunner.agent.plan import Plan
    from airunner.agent.workspace.shortpaths import bases_of
    from airunner.transport.channel import Channel
    from airunner.transport.ports import SYSTEM

    plan = Plan(
        name=f"{socket.gethostname()}-{locked.number}",
        slots=1,
        queues=(spec.queue,),
        visibility_ms=VISIBILITY_MS,
        home=locked.folder,
        tags=spec.require,
    )
    surroundings = Surroundings(
        launcher=launcher,
        wall_ms=SYSTEM.wall_ms,
        environ={name: value for name, value in os.environ.items() if not name.startswith(_OURS)},
        offload=offload,
        secrets=secrets,
        rules=Rules(allow_local=True),
        random=SYSTEM.random,
        bases=bases_of(os.environ),
    )
    channel = Channel(network, [network.router.endpoint], _no_token, SYSTEM)
    return Agent(plan, channel, surroundings, SYSTEM, _log.debug)


async def _follow(
    spec: JobSpec,
    prepare: Prepare | None,
    stdin: bytes,
    console: Console,
    json: bool,
    record: Callable[[Event], None] | None,
    interrupts: Interrupts,
    network: MemoryNetwork,
) -> int:
    """Submit the job and show it to its end; return the exit code, or 1 after a second Ctrl-C."""
    import anyio

    from airunner.agent.launcher.offloading import offload
    from airunner.client.client import Client
    from airunner.client.reach import Reach
    from airunner.transport.ports import SYSTEM

    code = 1
    writing = anyio.Lock()

    async def write(call: Callable[[], None]) -> None:
        async with writing:
            await offload(call, abandon=True)

    reach = Reach(network=network, endpoints=(network.router.endpoint,), token=_no_token, edges=SYSTEM)
    async with Client(reach=reach) as client, anyio.create_task_group() as group:

        async def obey(job_id: str) -> None:
            await interrupts.next()
            group.start_soon(client.cancel, job_id)
            hint = "cancelling; press Ctrl-C again to kill the job and exit"
            group.start_soon(write, partial(console.must_say, hint))
            await interrupts.next()
            group.cancel_scope.cancel()

        job = await client.submit(spec if prepare is None else await prepare(client, spec), stdin=stdin)
        group.start_soon(obey, job.id)
        code = await follow_job(client, job.id, console, json=json, record=record, offload=write, alone=True)
        group.cancel_scope.cancel()
    return code


def _no_token() -> bytes:
    return b""
