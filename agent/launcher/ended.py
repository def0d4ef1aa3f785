"""Ended process: a short command that had ended, and left no process, when its launch returned."""

from __future__ import annotations

from signal import Signals

from airunner.agent.launcher.child.wire import Ran
from airunner.agent.launcher.contract import RECEIVE_BYTES, ByteSource, Exit, Holder, Spent, Survivor, Vitals
from airunner.protocol.fields import TerminalSize


class OutputSource:
    """Source of the output that a command has left."""

    def __init__(self, output: bytes) -> None:
        self._left = output

    async def receive(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Return the next bytes; b"" at the end."""
        chunk, self._left = self._left[:max_bytes], self._left[max_bytes:]
        return chunk

    def close(self) -> None:
        """Drop the rest."""
        self._left = b""


class EndedProcess:
    """Ended process, as a `Process`: nothing of it is left but its report."""

    def __init__(self, ran: Ran) -> None:
        self.pid = ran.pid
        self.ran_s: float | None = ran.ran_us / 1_000_000
        self.spent = Spent(*ran.spent)
        self._exit = Exit(ran.exit_code, ran.signal, ran.oom)
        self.stdout: ByteSource = OutputSource(ran.output[0])
        self.stderr: ByteSource | None = OutputSource(ran.output[1]) if len(ran.output) > 1 else None

    def terminal_size(self) -> TerminalSize | None:
        """Return None: it had no terminal."""

    def resize(self, size: TerminalSize) -> None:
        """Do nothing: it had no terminal."""

    async def vitals(self) -> Vitals | None:
        """Return None: the command has ended."""

    async def holders(self) -> list[Holder]:
        """Return no process: its output is read."""
        return []

    async def wait(self) -> Exit:
        """Return the command's exit."""
        return self._exit

    def keep_until(self, deadline_s: float) -> None:
        """Do nothing: the job has ended."""

    async def end(self, grace_s: float, number: Signals = Signals.SIGTERM) -> list[Survivor]:  # noqa: ARG002 - of `Process.end`
        """Return no survivor."""
        return []

    def close(self) -> None:
        """Do nothing: no connection or descriptor is open."""
