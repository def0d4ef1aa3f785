"""One attempt at one job: checkout, process, result; and then nothing left behind.

What happens is written to the journal as it happens. `perform` returns how it ended, or is cancelled: by a
lost lease or an agent that is told to stop; or it raises `LeaseEnded`, when the agent could not act in time and
the keepers did. Either way every process is gone when it is over.

A job that is cancelled, or out of time, is told with SIGTERM and given a grace. What it says meanwhile is in the log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import anyio
from msgspec import Struct

from airunner.agent.checkout import CheckoutFailed, check_out
from airunner.agent.environment import AttemptPlace, job_environment
from airunner.agent.journal import Journal
from airunner.agent.launcher.attending import attended
from airunner.agent.launcher.contract import (
    ByteSource,
    Exit,
    Launcher,
    LaunchFailed,
    LaunchSpec,
    Process,
    Survivor,
)
from airunner.agent.repository import Source
from airunner.agent.tenure import LeasedLauncher, Tenure
from airunner.agent.workspace import Leftover, Workspace
from airunner.protocol.events import (
    OUTPUT_BYTES_MAX,
    GitCloneEnd,
    GitCloneError,
    GitCloneStart,
    ProcessEnd,
    ProcessError,
    ProcessStart,
    Stream,
)
from airunner.protocol.job import ProcessType, Reason, Result, TerminalSize
from airunner.protocol.redaction import without_credentials

GRACE_S: Final = 10.0  # between SIGTERM and SIGKILL, for what a command left behind and what is cancelled
MESSAGE_CHARS_MAX: Final = 16_384
SURVIVORS_NAMED_MAX: Final = 50


class Surroundings(Struct, frozen=True):
    """What an attempt needs of its agent; `offload` runs what the disk makes slow, in production in a thread."""

    launcher: Launcher
    wall_ms: Callable[[], int]
    environ: Mapping[str, str]
    offload: Callable[[Callable[[], list[Leftover]]], Awaitable[list[Leftover]]]
    cancel_grace_s: float = GRACE_S


class Attempt:
    """The attempt that `tenure` is for, in `workspace`."""

    def __init__(self, tenure: Tenure, workspace: Workspace, journal: Journal, surroundings: Surroundings) -> None:
        self._tenure = tenure
        self._lease = tenure.lease
        self._spec = tenure.lease.spec
        self._workspace = workspace
        self._journal = journal
        self._launcher = LeasedLauncher(surroundings.launcher, tenure)
        self._wall_ms = surroundings.wall_ms
        self._environ = surroundings.environ
        self._cancel_grace_s = surroundings.cancel_grace_s

    async def perform(self) -> Result:
        """Check out, run, and say how it ended. The timeout counts from the start of the command.

        Raises `LauncherDied`, `LeaseEnded`, alone or in a group.
        """
        process: Process | None = None
        try:
            with self._tenure.unless_cancelled():
                process = await self._start()
        except CheckoutFailed as failed:
            message = failed.message[:MESSAGE_CHARS_MAX]
            self._journal.add(GitCloneError(timestamp_ms=self._wall_ms(), message=message, exit_code=failed.exit_code))
            return Result(reason=Reason.CHECKOUT_FAILED)
        except LaunchFailed as failed:
            self._say(failed.message)
            return Result(exit_code=failed.exit_code, reason=Reason.COMMAND_NOT_FOUND)
        if process is None:
            return Result(reason=Reason.CANCELLED)
        async with attended(process):
            return await self._attend(process)

    async def _start(self) -> Process:
        """Check out, and start the command.

        Raises `CheckoutFailed`, `LaunchFailed`, `LauncherDied`, `LeaseEnded`.
        """
        commit = await self._check_out() if self._spec.repository else ""
        terminal = self._spec.terminal if self._spec.process_type is ProcessType.PTY else None
        return await self._launcher.launch(self._launch_spec(commit, terminal))

    async def _check_out(self) -> str:
        """The commit that stands in the checkout now.

        Raises `CheckoutFailed`, `LauncherDied`, `LeaseEnded`.
        """
        spec = self._spec
        started_s = anyio.current_time()
        self._journal.add(
            GitCloneStart(
                timestamp_ms=self._wall_ms(),
                repository=without_credentials(spec.repository),
                commit=spec.commit,
                branch=spec.branch,
            )
        )
        done = await check_out(
            self._launcher,
            Source(repository=spec.repository, commit=spec.commit, branch=spec.branch),
            workspace=self._workspace,
            agent_environ=self._environ,
        )
        self._journal.add(
            GitCloneEnd(timestamp_ms=self._wall_ms(), commit=done.commit, duration_ms=_ms_since(started_s))
        )
        return done.commit

    def _launch_spec(self, commit: str, terminal: TerminalSize | None) -> LaunchSpec:
        spec = self._spec
        place = AttemptPlace(
            job_id=self._lease.job_id,
            attempt=self._lease.attempt,
            queue=spec.queue,
            repository=without_credentials(spec.repository),
            commit=commit,
            branch=spec.branch,
            workspace=self._workspace.checkout,
            home=self._workspace.home,
            temporary=self._workspace.temporary,
        )
        environment = job_environment(
            agent_environ=self._environ, place=place, job=spec.environment, terminal=terminal is not None
        )
        return LaunchSpec(
            argv=spec.argv,
            environment=environment,
            working_directory=Path(self._workspace.checkout, spec.working_directory),
            terminal=terminal,
        )

    async def _attend(self, process: Process) -> Result:
        """Read all that the process writes, to its end and that of its whole tree."""
        started_s = anyio.current_time()
        now_ms = self._wall_ms()
        self._journal.add(ProcessStart(timestamp_ms=now_ms, pid=process.pid, started_at=now_ms))
        cut_short: Reason | None = None
        duration_ms = 0
        survivors: list[Survivor] = []
        ended: Exit | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._read, process.stdout, Stream.STDOUT)
            if process.stderr is not None:
                group.start_soon(self._read, process.stderr, Stream.STDERR)
            cut_short = await self._wait(process)
            duration_ms = _ms_since(started_s)
            survivors = await process.end(self._cancel_grace_s if cut_short else GRACE_S)
            ended = await process.wait()
            if any(survivor.left for survivor in survivors):
                group.cancel_scope.cancel()  # it may hold a pipe open for as long as it hangs
        assert ended is not None, "only an error ends the block before the process, and that goes on"
        if survivors and not cut_short:
            self._say(_named(survivors))
        self._journal.add(
            ProcessEnd(
                timestamp_ms=self._wall_ms(),
                pid=process.pid,
                exit_code=ended.exit_code,
                signal=ended.signal,
                duration_ms=duration_ms,
            )
        )
        return _result(ended, cut_short)

    async def _wait(self, process: Process) -> Reason | None:
        """The command's own end, or why it is not waited for any longer.

        Raises `LauncherDied`, `LeaseEnded`.
        """
        with anyio.move_on_after(self._spec.timeout_seconds), self._tenure.unless_cancelled() as unless_cancelled:
            await process.wait()
            return None
        return Reason.CANCELLED if unless_cancelled.cancelled_caught else Reason.TIMEOUT

    async def _read(self, source: ByteSource, stream: Stream) -> None:
        while data := await source.receive(OUTPUT_BYTES_MAX):
            await self._journal.add_output(stream, data, self._wall_ms())

    def _say(self, message: str) -> None:
        self._journal.add(ProcessError(timestamp_ms=self._wall_ms(), message=message[:MESSAGE_CHARS_MAX]))


def _result(ended: Exit, cut_short: Reason | None) -> Result:
    if cut_short:
        return Result(exit_code=ended.exit_code, signal=ended.signal, reason=cut_short)
    if ended.signal is not None:
        return Result(signal=ended.signal, reason=Reason.SIGNAL)
    assert ended.exit_code is not None, "an end has an exit code or a signal"
    return Result(exit_code=ended.exit_code, reason=Reason.EXIT_CODE if ended.exit_code else None)


def _named(survivors: list[Survivor]) -> str:
    lines = [
        f"  {one.pid} {one.command}" + (" (could not be ended)" if one.left else "")
        for one in survivors[:SURVIVORS_NAMED_MAX]
    ]
    if len(survivors) > SURVIVORS_NAMED_MAX:
        lines.append(f"  and {len(survivors) - SURVIVORS_NAMED_MAX} more")
    return "\n".join(["the command has ended, and these that it had started were ended after it:", *lines])


def _ms_since(instant_s: float) -> int:
    return int((anyio.current_time() - instant_s) * 1_000)
