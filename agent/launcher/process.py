"""Kept process: the process tree of one job, as a `Process` that the agent controls over a keeper's connection.

Methods that wait for the keeper raise `LauncherDied` and `LeaseEnded`, as `contract.py` says.
"""

from __future__ import annotations

import os
import termios
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import starmap
from signal import Signals
from typing import Final

import anyio

from airunner.agent.launcher.child.wire import End, Ended, Exited, Expired, KeepUntil, ToAgent, deadline_ms
from airunner.agent.launcher.connection import KeeperConnection
from airunner.agent.launcher.contract import ByteSource, Exit, Holder, LauncherDied, LeaseEnded, Spent, Survivor, Vitals
from airunner.agent.launcher.inspection import holders_of, vitals_of
from airunner.agent.launcher.offloading import offload
from airunner.agent.launcher.streams import DescriptorSource
from airunner.agent.launcher.watchdog import KeeperProcess
from airunner.protocol.fields import TerminalSize
from airunner.protocol.fieldtypes import TERMINAL_SIDE_MAX

STOPPED_S: Final = 1.0  # seconds after the grace, until a stopped keeper is killed: its job has stopped it again
SILENT_S: Final = 15.0  # seconds after the grace, until a silent keeper is killed; `STUCK_S` in keeper.py is 10


class KeptProcess:
    """Kept process: owns its keeper's connection until no process of the job is left, and then gives it back.

    It has no task of its own: of the tasks that wait, one at a time receives the messages for all of them.
    """

    def __init__(
        self,
        pid: int,
        descriptors: list[int],
        connection: KeeperConnection,
        give_back: Callable[[KeeperConnection], None],
        kill_rest: Callable[[], Awaitable[None]],
    ) -> None:
        """`kill_rest` kills the job's processes that are left after the keeper has died."""
        self._sources = [DescriptorSource(descriptor) for descriptor in descriptors]
        self._in_terminal = os.isatty(descriptors[0])
        self.pid = pid
        self.stdout: ByteSource = self._sources[0]
        self.stderr: ByteSource | None = self._sources[1] if len(descriptors) > 1 else None
        self.ran_s: float | None = None
        self.spent = Spent()
        self._connection: KeeperConnection | None = connection
        self._give_back = give_back
        self._kill_rest = kill_rest
        self._receiving = anyio.Lock(fast_acquire=True)
        self._exit: Exit | None = None
        self._survivors: list[Survivor] | None = None  # None: processes of the job may be left
        self._answers = 0  # Ended messages that the keeper owes us: one for each End
        self._expired = False
        self._rest_killed = False

    def terminal_size(self) -> TerminalSize | None:
        """Return the terminal's current size; None: there is no open terminal, or its size is out of bounds."""
        descriptor = self._sources[0].descriptor
        if not self._in_terminal or descriptor is None:
            return None
        rows, cols = termios.tcgetwinsize(descriptor)
        if not (1 <= rows <= TERMINAL_SIDE_MAX and 1 <= cols <= TERMINAL_SIDE_MAX):
            return None
        return TerminalSize(cols=cols, rows=rows)

    def resize(self, size: TerminalSize) -> None:
        """Set the terminal's size, if it is open: its programs get SIGWINCH."""
        descriptor = self._sources[0].descriptor
        if self._in_terminal and descriptor is not None:
            termios.tcsetwinsize(descriptor, (size.rows, size.cols))

    async def vitals(self) -> Vitals | None:
        """Count the job's living processes and their memory; None: the command has ended."""
        return await offload(lambda: vitals_of(self.pid))

    async def holders(self) -> list[Holder]:
        """List the processes that hold open a pipe or terminal which has not been read to its end."""
        unread = [source.descriptor for source in self._sources if source.descriptor is not None]
        try:
            return await offload(lambda: holders_of(unread))
        except OSError:  # no free descriptor to read /proc with
            return []

    async def wait(self) -> Exit:
        """Wait for the command's exit."""
        while self._exit is None:
            await self._receive(lambda: self._exit is not None)
        return self._exit

    def keep_until(self, deadline_s: float) -> None:
        """Send the keeper the instant at which it kills the job, even if the agent is stopped."""
        if self._connection is not None:
            self._connection.try_send(KeepUntil(deadline_ms(deadline_s)))

    async def end(self, grace_s: float, number: Signals = Signals.SIGTERM) -> list[Survivor]:
        """End all processes of the job; if several tasks call, the grace that ends first counts.

        A keeper that does not answer in time is killed, and all processes of its job with it.
        """
        try:
            with anyio.move_on_after(grace_s + SILENT_S):
                with anyio.move_on_after(grace_s + STOPPED_S):
                    await self._send_end(grace_s, number)
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
        """Close connection and descriptors; if `end` has not finished, all processes are killed at once."""
        self._hang_up()
        for source in self._sources:
            source.close()

    async def _ended(self) -> list[Survivor]:
        """Wait for the last Ended, or an Exited that left no process; return the survivors."""
        while self._survivors is None:
            await self._receive(lambda: self._survivors is not None)
        return self._survivors

    @property
    def _keeper(self) -> KeeperProcess | None:
        return self._connection.keeper if self._connection is not None else None

    async def _send_end(self, grace_s: float, number: Signals) -> None:
        if self._connection is not None:
            if self._keeper is not None:
                self._keeper.wake()  # the launcher does so too, unless it is stopped or dead itself
            with suppress(LauncherDied):  # `receive` raises it again, after messages that have arrived
                await self._connection.send(End(round(grace_s * 1000), number))
            self._answers += 1

    async def _receive(self, done: Callable[[], bool]) -> None:
        """Receive the next message; return at once if `done()`: another task has received the awaited message."""
        async with self._receiving:
            if done():
                return
            if self._expired:
                raise LeaseEnded
            if self._connection is None:
                raise anyio.ClosedResourceError
            match await self._next_message(self._connection):
                case Exited(exit_code, number, alone, oom, spent):
                    self._exit = Exit(exit_code, number, oom)
                    self.spent = Spent(*spent)
                    if alone and not self._answers:
                        self._finish([])
                case Ended(survivors, spent):
                    self.spent = Spent(*spent)
                    self._answers -= 1
                    if not self._answers:  # the last answer: an unread one would be taken for the next job's
                        self._finish(list(starmap(Survivor, survivors)))
                case Expired():
                    self._expired = True
                    self._hang_up()
                    raise LeaseEnded
                case other:
                    raise AssertionError(f"unexpected message of a keeper: {other}")

    async def _next_message(self, connection: KeeperConnection) -> ToAgent:
        """Receive the next message. If the keeper has died, kill the job's processes, then raise `LauncherDied`."""
        try:
            return await connection.receive()
        except LauncherDied:
            if not self._rest_killed:
                await self._kill_rest()
                self._rest_killed = True
            raise

    def _finish(self, survivors: list[Survivor]) -> None:
        assert self._connection is not None
        connection, self._connection = self._connection, None
        self._survivors = survivors
        if any(survivor.left for survivor in survivors):
            connection.close()  # the keeper goes on killing them, and can run no other job
        else:
            self._give_back(connection)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
