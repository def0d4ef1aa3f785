"""The Timekeeper: knows the next instant at which a lease is due, and wakes the Ledger then.

There is no sweep: it sleeps until exactly that instant, or until the Ledger names another.
"""

from __future__ import annotations

import anyio

from airunner.broker.clock import Clock
from airunner.broker.inbox import Alarm, TimekeeperInbox
from airunner.broker.store.contract import Expire
from airunner.broker.turns import Turns


class Timekeeper:
    """The actor; it owns one instant."""

    def __init__(self, inbox: TimekeeperInbox, ledger: Turns, clock: Clock) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._clock = clock

    async def run(self) -> None:
        """Wait and wake for ever."""
        due_ms: int | None = None
        while True:
            alarm = await self._next_alarm(due_ms)
            if alarm is None:
                await self._ledger.send(Expire())
            due_ms = alarm.due_ms if alarm else None  # after an Expire the Ledger always names the next

    async def _next_alarm(self, due_ms: int | None) -> Alarm | None:
        """A new alarm, or None when `due_ms` has come first."""
        if due_ms is None:
            return await self._inbox.receive()
        with anyio.CancelScope(deadline=self._clock.deadline_s(due_ms)):
            return await self._inbox.receive()
        return None
