"""Sees one process of an attempt to its end, and all that it writes into the journal.

A process is over when nothing of its tree is left: its own end, then SIGTERM to what it had started, and SIGKILL
after a grace. One that is cancelled or out of time is told so in the same way. What is said meanwhile is in the log,
and so are the names of those that had to be ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
from msgspec import Struct

from airunner.agent.flag import Flag, unless
from airunner.agent.journal import Journal
from airunner.agent.launcher.contract import ByteSource, Exit, Process, Survivor
from airunner.agent.tenure import Tenure
from airunner.protocol.events import OUTPUT_BYTES_MAX, ProcessError, Stream
from airunner.protocol.job import Reason

GRACE_S: Final = 10.0  # between SIGTERM and SIGKILL, for what a command left behind and what is cancelled
MESSAGE_CHARS_MAX: Final = 16_384
SURVIVORS_NAMED_MAX: Final = 50


class Ended(Struct, frozen=True):
    """How a process ended, whether it was `cut_short` and why, and how long it ran."""

    exit: Exit
    cut_short: Reason | None
    duration_ms: int


class Console:
    """The console of the attempt that `tenure` is for."""

    def __init__(self, tenure: Tenure, journal: Journal, wall_ms: Callable[[], int], cancel_grace_s: float) -> None:
        self._tenure = tenure
        self._journal = journal
        self._wall_ms = wall_ms
        self._cancel_grace_s = cancel_grace_s

    async def attend(self, process: Process, timeout_s: float | None, *, cancellable: bool = True) -> Ended:
        """Read all that the process writes, to its end and that of its whole tree.

        One that is not `cancellable` is not ended with the job: it clears up after it.

        Raises `LauncherDied`, `LeaseEnded`, in a group.
        """
        began_s = anyio.current_time()
        cut_short: Reason | None = None
        duration_ms = 0
        survivors: list[Survivor] = []
        ended: Exit | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._read, process.stdout, Stream.STDOUT)
            if process.stderr is not None:
                group.start_soon(self._read, process.stderr, Stream.STDERR)
            cut_short = await self._wait(process, timeout_s, *([self._tenure.cancelled] if cancellable else []))
            duration_ms = ms_since(began_s)
            survivors = await process.end(self._cancel_grace_s if cut_short else GRACE_S)
            ended = await process.wait()
            if any(survivor.left for survivor in survivors):
                group.cancel_scope.cancel()  # it may hold a pipe open for as long as it hangs
        assert ended is not None, "only an error ends the block before the process, and that goes on"
        if survivors and not cut_short:
            self.say(_named(survivors))
        return Ended(ended, cut_short, duration_ms)

    def say(self, message: str) -> None:
        """Have something that is amiss stand in the log."""
        self._journal.add(ProcessError(timestamp_ms=self._wall_ms(), message=message[:MESSAGE_CHARS_MAX]))

    async def _wait(self, process: Process, timeout_s: float | None, *cancels: Flag) -> Reason | None:
        """The process's own end, or why it is not waited for any longer.

        Raises `LauncherDied`, `LeaseEnded`.
        """
        with anyio.move_on_after(timeout_s), unless(*cancels) as uncancelled:
            await process.wait()
            return None
        return Reason.CANCELLED if uncancelled.cancelled_caught else Reason.TIMEOUT

    async def _read(self, source: ByteSource, stream: Stream) -> None:
        while data := await source.receive(OUTPUT_BYTES_MAX):
            await self._journal.add_output(stream, data, self._wall_ms())


def ms_since(instant_s: float) -> int:
    """Milliseconds since an instant of anyio's clock."""
    return int((anyio.current_time() - instant_s) * 1_000)


def _named(survivors: list[Survivor]) -> str:
    lines = [
        f"  {one.pid} {one.command}" + (" (could not be ended)" if one.left else "")
        for one in survivors[:SURVIVORS_NAMED_MAX]
    ]
    if len(survivors) > SURVIVORS_NAMED_MAX:
        lines.append(f"  and {len(survivors) - SURVIVORS_NAMED_MAX} more")
    return "\n".join(["the command has ended, and these that it had started were ended after it:", *lines])
