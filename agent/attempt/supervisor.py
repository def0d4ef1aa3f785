"""Supervisor: waits until one process of an attempt and its descendants have ended, and records their output.

When the process itself has ended, its descendants get SIGTERM and, after a grace, SIGKILL. So does a process that is
cancelled or exceeds its timeout, but the first signal is then the job's choice. The log contains all output until then,
and the names of processes that were ended.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from signal import Signals
from typing import Final

import anyio
from msgspec import Struct

from airunner.agent.attempt.heartbeat import beat
from airunner.agent.flag import Flag, cancelled_by
from airunner.agent.launcher.contract import ByteSource, Exit, Holder, Process, Survivor
from airunner.agent.leases.heldlease import HeldLease
from airunner.agent.output.characters import INCOMPLETE_S
from airunner.agent.output.recorder import Recorder
from airunner.protocol.events import OUTPUT_BYTES_MAX, ProcessError, Stream, TerminalResize
from airunner.protocol.fields import TerminalSize
from airunner.protocol.job import Reason, Result
from airunner.protocol.printable import one_line

GRACE_S: Final = 10.0  # seconds between SIGTERM and SIGKILL, for descendants that outlive their command
MESSAGE_CHARS_MAX: Final = 16_384  # length of one error message in the log
NAMED_MAX: Final = 50  # number of processes that one message names
# Limits of reading a pipe that a process outside the job still holds open when the job's last process has ended:
OPEN_PIPE_S: Final = 1.0  # seconds without a byte
OPEN_PIPE_S_MAX: Final = 10.0  # seconds of waiting altogether
OPEN_PIPE_BYTES_MAX: Final = 1_048_576  # a pipe buffers no more, unless root has enlarged it (fs.pipe-max-size)


class CommandEnd(Struct, frozen=True):
    """End of a command: its exit, the reason if it was ended early (`cut_short`), and how long it ran."""

    exit: Exit
    cut_short: Reason | None
    duration_ms: int


class Supervisor:
    """Supervisor of the processes of the attempt with the lease `held`."""

    def __init__(self, held: HeldLease, recorder: Recorder, wall_ms: Callable[[], int], cancel_grace_s: float) -> None:
        self._held = held
        self._recorder = recorder
        self._wall_ms = wall_ms
        self._cancel_grace_s = cancel_grace_s
        self._size: TerminalSize | None = None
        self.written = {Stream.STDOUT: 0, Stream.STDERR: 0}  # bytes of output, including what the log omits

    async def supervise(
        self,
        process: Process,
        timeout_s: float | None,
        *,
        terminal: TerminalSize | None = None,
        cancellable: bool = True,
        name: str = "the command",
        cancel_signal: Signals = Signals.SIGTERM,
        beside: Callable[[Process], Awaitable[None]] | None = None,
    ) -> CommandEnd:
        """Supervise a process until it and its descendants have ended, and record the output.

        `terminal` is the initial size of its terminal, if it has one. A process that is not `cancellable`, such as a
        hook that cleans up, goes on when the job is cancelled. A process that is ended early gets `cancel_signal`.
        Messages call the process by its `name`. `beside` runs until no process is left, unless all had ended before.
        Raises `LauncherDied`, `LeaseEnded`, in a group.
        """
        if process.ran_s is not None:
            return await self._record_ended(process, process.ran_s)
        began_s = anyio.current_time()
        self._note_size(terminal)
        cut_short: Reason | None = None
        grace_s, number, duration_ms = GRACE_S, Signals.SIGTERM, 0
        survivors: list[Survivor] = []
        ended: Exit | None = None
        sources = {Stream.STDOUT: process.stdout, Stream.STDERR: process.stderr}
        listeners = {stream: _Listener(source) for stream, source in sources.items() if source is not None}
        async with anyio.create_task_group() as group:
            for stream, listener in listeners.items():
                group.start_soon(self._read, process, listener, stream)
            served = anyio.CancelScope()
            if beside is not None:
                group.start_soon(_within, served, beside, process)
            async with anyio.create_task_group() as heartbeats:
                heartbeats.start_soon(beat, process, self._recorder, self._wall_ms)
                cut_short = await self._wait(process, timeout_s, *([self._held.cancelled] if cancellable else []))
                heartbeats.cancel_scope.cancel()
            duration_ms = ms_since(began_s)
            if cut_short:
                grace_s, number = self._cancel_grace_s, cancel_signal
            survivors = await process.end(grace_s, number)
            ended = await process.wait()
            served.cancel()
            for listener in listeners.values():
                listener.finish()
        if any(listener.held_open for listener in listeners.values()):
            self.say(_held(await process.holders()))
        self._recorder.end_output(self._wall_ms())
        assert ended is not None, "the block ended before the process, and without an error"
        if survivors:
            self.say(_named(survivors, name, f"{grace_s:g} s after {number.name}" if cut_short else None))
        return CommandEnd(ended, cut_short, duration_ms)

    async def _record_ended(self, process: Process, ran_s: float) -> CommandEnd:
        """Record the output of a process that had ended, and left no descendant, when it was launched."""
        for stream, source in ((Stream.STDOUT, process.stdout), (Stream.STDERR, process.stderr)):
            while source is not None and (data := await source.receive(OUTPUT_BYTES_MAX)):
                self.written[stream] += len(data)
                await self._recorder.add_output(stream, data, self._wall_ms())
        self._recorder.end_output(self._wall_ms())
        return CommandEnd(await process.wait(), None, int(ran_s * 1_000))

    def say(self, message: str) -> None:
        """Record an error message in the log."""
        self._recorder.add(ProcessError(timestamp_ms=self._wall_ms(), message=message[:MESSAGE_CHARS_MAX]))

    async def _wait(self, process: Process, timeout_s: float | None, *cancels: Flag) -> Reason | None:
        """Wait for the process itself, and return None when it has ended; or return the reason to end it now."""
        with cancelled_by(*cancels, timeout_s=timeout_s):
            await process.wait()
            return None
        return Reason.CANCELLED if any(flag.is_set() for flag in cancels) else Reason.TIMEOUT

    async def _read(self, process: Process, listener: _Listener, stream: Stream) -> None:
        while data := await self._receive(listener, stream):
            self._note_size(process.terminal_size())
            self.written[stream] += len(data)
            await self._recorder.add_output(stream, data, self._wall_ms())

    async def _receive(self, listener: _Listener, stream: Stream) -> bytes:
        """Receive output. If the rest of a character does not come in time, record its first bytes as they are."""
        if self._recorder.holds_character(stream):
            with anyio.move_on_after(INCOMPLETE_S):
                return await listener.receive()
            self._recorder.pass_character(stream, self._wall_ms())
        return await listener.receive()

    def _note_size(self, size: TerminalSize | None) -> None:
        """Record the terminal's size when it has changed: a program may resize its own terminal."""
        if size is not None and size != self._size:
            self._size = size
            self._recorder.add(TerminalResize(timestamp_ms=self._wall_ms(), cols=size.cols, rows=size.rows))


async def _within(scope: anyio.CancelScope, beside: Callable[[Process], Awaitable[None]], process: Process) -> None:
    with scope:
        await beside(process)


class _Listener:
    """Listener: reads one output stream of a process to its end.

    After the job's last process it reads the rest within limits, because a process outside the job may hold the pipe
    open for ever. Only time spent waiting for bytes counts: not time in which the recorder has no room, or in which
    this machine slept.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._waiting = anyio.CancelScope()
        self._silence_s = self._left_s = self._left_bytes = math.inf
        self.held_open = False  # a limit was reached before the end of the stream

    def finish(self) -> None:
        """Limit further reading: no process of the job runs any more."""
        self._silence_s, self._left_s, self._left_bytes = OPEN_PIPE_S, OPEN_PIPE_S_MAX, OPEN_PIPE_BYTES_MAX
        self._waiting.deadline = anyio.current_time() + OPEN_PIPE_S

    async def receive(self) -> bytes:
        """Receive at least one byte; b"" at the end of the stream, or when a limit is reached."""
        asked_s = anyio.current_time()
        if self._left_bytes > 0:
            with anyio.CancelScope(deadline=asked_s + min(self._silence_s, self._left_s)) as self._waiting:
                data = await self._source.receive(OUTPUT_BYTES_MAX)
                self._left_s -= min(self._silence_s, anyio.current_time() - asked_s)
                self._left_bytes -= len(data)
                return data
        self.held_open = True
        return b""


def ms_since(instant_s: float) -> int:
    """Return the milliseconds since an instant of anyio's clock."""
    return int((anyio.current_time() - instant_s) * 1_000)


def _named(survivors: list[Survivor], name: str, grace: str | None) -> str:
    """Return a message that names the processes that outlived the process `name` or, if it was cut short, the grace."""
    lines = [
        f"  {survivor.pid} {one_line(survivor.command)}" + (" (could not be ended)" if survivor.left else "")
        for survivor in survivors
    ]
    if grace is None:
        return _listed(f"{name} has ended; these processes that it had started were ended after it:", lines)
    return _listed(f"these processes had not ended {grace}, and were killed:", lines)


def _held(holders: list[Holder]) -> str:
    lines = [f"  {holder.pid} {one_line(holder.command)}" for holder in holders] or [
        "  (processes of another user, or ended already)"
    ]
    return _listed("stopped reading output: other processes still hold the pipe open:", lines)


def _listed(heading: str, lines: list[str]) -> str:
    more = [f"  and {len(lines) - NAMED_MAX} more"] if len(lines) > NAMED_MAX else []
    return "\n".join([heading, *lines[:NAMED_MAX], *more])


def result_of(ended: Exit, cut_short: Reason | None) -> Result:
    """Return the result of a command that has ended; `cut_short`: the reason why it was ended."""
    assert (ended.exit_code is None) is not (ended.signal is None), "neither an exit code nor a signal, or both"
    reason = cut_short or (Reason.OUT_OF_MEMORY if ended.oom else None)
    if reason is None and ended.exit_code != 0:
        reason = Reason.SIGNAL if ended.exit_code is None else Reason.EXIT_CODE
    return Result(exit_code=ended.exit_code, signal=ended.signal, reason=reason)
