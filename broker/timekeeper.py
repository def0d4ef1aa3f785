"""Timekeeper: wakes the Ledger at the next instant at which a lease or a delay is due.

It does not poll: it sleeps until exactly that instant, or until the Ledger names another. When the machine's time has
stepped, or the machine has slept, it sends the Ledger a `Resume`, as after a restart, before anything can be found due.
"""

from __future__ import annotations

import anyio

from airunner.broker.clock import Clock
from airunner.broker.fairqueue import FairQueue
from airunner.broker.inbox import Alarm, TimekeeperInbox
from airunner.broker.lifecycle.commands import Expire, Resume
from airunner.transport.ports import Edges


class Timekeeper:
    """Timekeeper actor; it owns one instant."""

    def __init__(self, inbox: TimekeeperInbox, ledger: FairQueue, clock: Clock, edges: Edges) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._clock = clock
        self._edges = edges

    async def run(self) -> None:
        """Wait for each instant and wake the Ledger, until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._edges.watch_steps, self._look_at_the_clock)
            due_ms: int | None = None
            while True:
                alarm = await self._next_alarm(due_ms)
                if alarm is None:
                    await self._ledger.send(Resume() if self._clock.stepped() else Expire())
                due_ms = alarm.due_ms if alarm else None  # after either the Ledger always names the next

    async def _next_alarm(self, due_ms: int | None) -> Alarm | None:
        """Receive a new alarm; None when `due_ms` came first."""
        if due_ms is None:
            return await self._inbox.receive()
        with anyio.CancelScope(deadline=self._clock.deadline_s(due_ms)):
            return await self._inbox.receive()
        return None

    def _look_at_the_clock(self) -> None:
        if self._clock.stepped():
            self._ledger.send_nowait(Resume())
