"""Kept process: one job's process tree as the agent sees it, a `Process` over the line to its keeper.

Whatever waits for the keeper here raises `LauncherDied` and `LeaseEnded`, as the contract says.
"""

from __future__ import annotations

import termios
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import starmap
from typing import Final

import anyio

from airunner.agent.launcher.child.wire import End, Ended, Exited, Expired, KeepUntil, ToAgent, deadline_ms
from airunner.agent.launcher.contract import ByteSource, Exit, Holder, LauncherDied, LeaseEnded, Spent, Survivor, Vitals
from airunner.agent.launcher.inspection import holders_of, vitals_of
from airunner.agent.launcher.line import Line
from airunner.agent.launcher.offloading import offload
from airunner.agent.launcher.streams import DescriptorSource
from airunner.agent.launcher.watchdog import KeeperProcess
from airunner.protocol.fields import TERMINAL_SIDE_MAX, TerminalSize

STOPPED_S: Final = 1.0  # after the grace: a keeper that is still stopped is stopped again and again
SILENT_S: Final = 15.0  # after the grace: a keeper gives up after ten seconds on processes that SIGKILL does not end


class KeptProcess:
    """Kept process: holds the line while the job lasts, and gives it back when nothing of the job is left.

    It has no task of its own: the task that waits for something reads the line for all that wait.
    """

    def __init__(
        self,
        pid: int,
        descriptors: list[int],
        line: Line,
        give_back: Callable[[Line], None],
        bury: Callable[[], Awaitable[None]],
    ) -> None:
        """`bury` kills what a keeper that has died has left of the job."""
        self._sources = [DescriptorSource(descriptor) for descriptor in descriptors]
        self.pid = pid
        self.stdout: ByteSource = self._sources[0]
        self.stderr: ByteSource | None = self._sources[1] if len(descriptors) > 1 else None
        self.spent = Spent()
        self._line: Line | None = line
        self._give_back = give_back
        self._bury = bury
        self._receiving = anyio.Lock(fast_acquire=True)
        self._exit: Exit | None = None
        self._survivors: list[Survivor] | None = None  # a list: nothing is left
        self._answers = 0  # the keeper owes us: one for each End
        self._expired = False
        self._buried = False

    def terminal_size(self) -> TerminalSize | None:
        """Return the current size of its terminal; None for a size that no terminal has, which its program may set."""
        descriptor = self._sources[0].descriptor
        if self.stderr is not None or descriptor is None:
            return None
        rows, cols = termios.tcgetwinsize(descriptor)
        if not (1 <= rows <= TERMINAL_SIDE_MAX and 1 <= cols <= TERMINAL_SIDE_MAX):
            return None
        return TerminalSize(cols=cols, rows=rows)

    async def vitals(self) -> Vitals | None:
        """Count its living processes and their memory."""
        return await offload(lambda: vitals_of(self.pid))

    async def holders(self) -> list[Holder]:
        """List the processes that hold open what has not been read to its end."""
        unread = [source.descriptor for source in self._sources if source.descriptor is not None]
        try:
            return await offload(lambda: holders_of(unread))
        except OSError:  # no descriptors to look with
            return []

    async def wait(self) -> Exit:
        """Wait for the command's own end."""
        while self._exit is None:
            await self._receive(lambda: self._exit is not None)
        return self._exit

    def keep_until(self, deadline_s: float) -> None:
        """Move the instant at which the keeper kills the job, whatever became of us."""
        if self._line is not None:
            self._line.tell(KeepUntil(deadline_ms(deadline_s)))

    async def end(self, grace_s: float) -> list[Survivor]:
        """End all processes of the job; of several callers' graces the shortest counts.

        A keeper that does not answer in time is killed, and what it kept with it.
        """
        try:
            with anyio.move_on_after(grace_s + SILENT_S):
                with anyio.move_on_after(grace_s + STOPPED_S):
                    await self._send_end(grace_s)
                    return await self._ended()
                if self._keeper is None or not self._keeper.stopped:
                    return await self._ended()
            if self._keeper is not None:
                self._keeper.kill()
            return await self._ended()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), suppress(LauncherDied, LeaseEnded, anyio.ClosedResourceError):
                await self.end(0)  # so that after a cancellation nothing runs any more
            raise

    def close(self) -> None:
        """Release line and descriptors; where `end` has not finished, all processes are killed at once."""
        self._hang_up()
        for source in self._sources:
            source.close()

    async def _ended(self) -> list[Survivor]:
        """Wait until nothing is left, and return the processes that outlived the command."""
        while self._survivors is None:
            await self._receive(lambda: self._survivors is not None)
        return self._survivors

    @property
    def _keeper(self) -> KeeperProcess | None:
        return self._line.keeper if self._line is not None else None

    async def _send_end(self, grace_s: float) -> None:
        if self._line is not None:
            if self._keeper is not None:
                self._keeper.wake()  # its launcher would, unless that is stopped or dead itself
            with suppress(LauncherDied):  # the next message on the line reports it, or something better
                await self._line.send(End(round(grace_s * 1000)))
            self._answers += 1

    async def _receive(self, done: Callable[[], bool]) -> None:
        """Receive the next message, unless another task has received what is waited for meanwhile."""
        async with self._receiving:
            if done():
                return
            if self._expired:
                raise LeaseEnded
            if self._line is None:
                raise anyio.ClosedResourceError
            match await self._heard(self._line):
                case Exited(exit_code, number, alone, oom, spent):
                    self._exit = Exit(exit_code, number, oom)
                    self.spent = Spent(*spent)
                    if alone and not self._answers:
                        self._finish([])
                case Ended(survivors, spent):
                    self.spent = Spent(*spent)
                    self._answers -= 1
                    if not self._answers:  # an answer left on the line would be taken for the next job's
                        self._finish(list(starmap(Survivor, survivors)))
                case Expired():
                    self._expired = True
                    self._hang_up()
                    raise LeaseEnded
                case other:
                    raise AssertionError(f"a keeper said {other} out of turn")

    async def _heard(self, line: Line) -> ToAgent:
        """Receive the next message; before a keeper's death is reported, kill what is left of the job."""
        try:
            return await line.receive()
        except LauncherDied:
            if not self._buried:
                await self._bury()
                self._buried = True
            raise

    def _finish(self, survivors: list[Survivor]) -> None:
        assert self._line is not None
        line, self._line = self._line, None
        self._survivors = survivors
        if any(survivor.left for survivor in survivors):
            line.close()  # this keeper stays with them; it can keep no other job
        else:
            self._give_back(line)

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
