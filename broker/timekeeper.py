"""Timekeeper: wakes the Ledger at the next instant at which a lease or a delay is due.

It does not poll: it sleeps until that instant, or until the Ledger sends an alarm for an earlier one. If a lease was
renewed or has ended meanwhile, nothing is due, and the Ledger sends the alarm for what is next.

When the machine's time has stepped, or the machine has slept, it sends the Ledger a `RenewAll`, as after a restart,
before anything can expire.
"""

from __future__ import annotations

import anyio

from airunner.broker.clock import Clock
from airunner.broker.fairqueue import FairQueue
from airunner.broker.inbox import Alarm, TimekeeperInbox
from airunner.broker.lifecycle.commands import Expire, RenewAll
from airunner.transport.ports import Edges


class Timekeeper:
    """Timekeeper actor; its state is the instant of the next alarm."""

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
                    await self._ledger.send(RenewAll() if self._clock.stepped() else Expire())
                due_ms = alarm.due_ms if alarm else None  # the Ledger sends an alarm after each of these two commands

    async def _next_alarm(self, due_ms: int | None) -> Alarm | None:
        """Receive a new alarm; None: `due_ms` came first."""
        if due_ms is None:
            return await self._inbox.receive()
        with anyio.CancelScope(deadline=self._clock.deadline_s(due_ms)):
            return await self._inbox.receive()
        return None

    def _look_at_the_clock(self) -> None:
        if self._clock.stepped():
            self._ledger.send_nowait(RenewAll())
            self._ledger.wake()
