"""Sees one process of an attempt to its end, and all that it writes into the journal.

A process is over when nothing of its tree is left: its own end, then SIGTERM to what it had started, and SIGKILL
after a grace. One that is cancelled or out of time is told so in the same way. What is said meanwhile is in the log,
and so are the names of those that had to be ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import anyio
from msgspec import Struct

from airunner.agent.flag import Flag, unless
from airunner.agent.heartbeat import beat
from airunner.agent.journal import Journal
from airunner.agent.launcher.contract import ByteSource, Exit, Holder, Process, Survivor
from airunner.agent.tenure import Tenure
from airunner.protocol.events import OUTPUT_BYTES_MAX, ProcessError, Stream, TerminalResize
from airunner.protocol.job import Reason, TerminalSize
from airunner.protocol.printable import one_line

GRACE_S: Final = 10.0  # between SIGTERM and SIGKILL, for what a command left behind and what is cancelled
MESSAGE_CHARS_MAX: Final = 16_384
NAMED_MAX: Final = 50
HELD_S: Final = 1.0  # of silence, for what is still in a pipe that somebody outside the job holds open
HELD_S_MAX: Final = 10.0  # for one who goes on writing


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
        self._size: TerminalSize | None = None
        self.written = {Stream.STDOUT: 0, Stream.STDERR: 0}  # bytes, whatever the log keeps of them

    async def attend(
        self,
        process: Process,
        timeout_s: float | None,
        *,
        terminal: TerminalSize | None = None,
        cancellable: bool = True,
    ) -> Ended:
        """Read all that the process writes, to its end and that of its whole tree.

        `terminal` is the size that its terminal was given, if it has one. One that is not `cancellable` is not ended
        with the job: it clears up after it.

        Raises `LauncherDied`, `LeaseEnded`, in a group.
        """
        began_s = anyio.current_time()
        self._note_size(terminal)
        cut_short: Reason | None = None
        grace_s = duration_ms = 0.0
        survivors: list[Survivor] = []
        ended: Exit | None = None
        reading = _Reading(1 if process.stderr is None else 2)
        beating = anyio.CancelScope()
        async with anyio.create_task_group() as group:
            group.start_soon(self._read, process, process.stdout, Stream.STDOUT, reading)
            if process.stderr is not None:
                group.start_soon(self._read, process, process.stderr, Stream.STDERR, reading)
            group.start_soon(self._beat, process, beating)
            cut_short = await self._wait(process, timeout_s, *([self._tenure.cancelled] if cancellable else []))
            beating.cancel()
            duration_ms = ms_since(began_s)
            grace_s = self._cancel_grace_s if cut_short else GRACE_S
            survivors = await process.end(grace_s)
            ended = await process.wait()
            if not await reading.over():
                self.say(_held(await process.holders()))
                group.cancel_scope.cancel()
        self._journal.end_output(self._wall_ms())
        assert ended is not None, "only an error ends the block before the process, and that goes on"
        if survivors:
            self.say(_named(survivors, grace_s if cut_short else None))
        return Ended(ended, cut_short, int(duration_ms))

    def say(self, message: str) -> None:
        """Have something that is amiss stand in the log."""
        self._journal.add(ProcessError(timestamp_ms=self._wall_ms(), message=message[:MESSAGE_CHARS_MAX]))

    async def _beat(self, process: Process, scope: anyio.CancelScope) -> None:
        """Say now and then that a silent command still runs, until that is over."""
        with scope:
            await beat(process, self._journal, self._wall_ms)

    async def _wait(self, process: Process, timeout_s: float | None, *cancels: Flag) -> Reason | None:
        """The process's own end, or why it is not waited for any longer.

        Raises `LauncherDied`, `LeaseEnded`.
        """
        with unless(*cancels, timeout_s=timeout_s):
            await process.wait()
            return None
        return Reason.CANCELLED if any(flag.is_set() for flag in cancels) else Reason.TIMEOUT

    async def _read(self, process: Process, source: ByteSource, stream: Stream, reading: _Reading) -> None:
        while data := await source.receive(OUTPUT_BYTES_MAX):
            reading.heard()
            self.written[stream] += len(data)
            await self._journal.add_output(stream, data, self._wall_ms())
            self._note_size(process.terminal_size())
        reading.ended()

    def _note_size(self, size: TerminalSize | None) -> None:
        """A program may change the size of its own terminal; whoever shows its output has to know."""
        if size is not None and size != self._size:
            self._size = size
            self._journal.add(TerminalResize(timestamp_ms=self._wall_ms(), cols=size.cols, rows=size.rows))


class _Reading:
    """Who reads on; and, once nothing of the job runs, for how much longer."""

    def __init__(self, readers: int) -> None:
        self._readers = readers
        self._done = anyio.Event()
        self._patience: anyio.CancelScope | None = None
        self._end_s = math.inf

    def ended(self) -> None:
        """One has come to the end."""
        self._readers -= 1
        if not self._readers:
            self._done.set()

    def heard(self) -> None:
        """Something came."""
        if self._patience is not None:
            self._patience.deadline = min(anyio.current_time() + HELD_S, self._end_s)

    async def over(self) -> bool:
        """Whether all is read to its end; where somebody outside the job holds it open that is not waited for."""
        if self._done.is_set():
            return True
        self._end_s = anyio.current_time() + HELD_S_MAX
        with anyio.move_on_after(HELD_S) as self._patience:
            await self._done.wait()
        return not self._patience.cancelled_caught


def ms_since(instant_s: float) -> int:
    """Milliseconds since an instant of anyio's clock."""
    return int((anyio.current_time() - instant_s) * 1_000)


def _named(survivors: list[Survivor], grace_s: float | None) -> str:
    """Who outlived the command; with a grace: who outlived that."""
    lines = [
        f"  {one.pid} {one_line(one.command)}" + (" (could not be ended)" if one.left else "") for one in survivors
    ]
    if grace_s is None:
        return _listed("the command has ended, and these that it had started were ended after it:", lines)
    return _listed(f"these had not ended {grace_s:g} s after SIGTERM, and were killed:", lines)


def _held(holders: list[Holder]) -> str:
    lines = [f"  {one.pid} {one_line(one.command)}" for one in holders] or ["  of another user, or gone by now"]
    return _listed("the job has ended; its output is read no further, though these outside of it hold it open:", lines)


def _listed(heading: str, lines: list[str]) -> str:
    more = [f"  and {len(lines) - NAMED_MAX} more"] if len(lines) > NAMED_MAX else []
    return "\n".join([heading, *lines[:NAMED_MAX], *more])
