"""Outage of a store over a network: reconnects with growing random pauses, and then renews this broker's leases.

Meanwhile the Ledger keeps the batch that met the outage, and sends no reply to it. Requests wait in the fair queue,
which replies `busy` when it is full. The leases are renewed before anything else is stored, since their agents could
not renew them; nobody else ends them, unless this broker was away for so long that others have adopted its jobs
(`Fenced`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import anyio

from airunner.broker.clock import Clock
from airunner.broker.health import Health
from airunner.broker.lifecycle.commands import RenewAll
from airunner.broker.offload import Steps
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import StoreAway
from airunner.protocol.errors import Busy, NoSpace
from airunner.transport.backoff import Backoff

PAUSE_FIRST_MS: Final = 50  # bound of the first pause: a restarted connection pooler is there again at once
PAUSE_LAST_MS: Final = 2_000  # bound of the pause in a long outage: well below the time after which a broker is dead
CONDITION: Final = "away"  # name of the condition in /health

Pause = Callable[[float], Steps[None]]
"""Pause of the Ledger until an instant of anyio's clock, in seconds."""


def half() -> float:
    """Return the same number each time, for pauses without jitter."""
    return 0.5


class Outage:
    """Outages of `store`, one after another; `random` is in [0, 1)."""

    def __init__(self, store: Store, clock: Clock, health: Health, random: Callable[[], float] = half) -> None:
        self._store = store
        self._clock = clock
        self._health = health
        self._random = random
        self._since_s: float | None = None
        self._why = ""
        health.watch(self._judge)

    def wait_out(self, why: StoreAway, pause: Pause) -> Steps[None]:
        """Wait until the store is there again and this broker's leases are renewed. Raises `Fenced`, `OperatorError`.

        The first try follows a pause too: when a database fails, all its brokers find out together.
        """
        self._since_s, self._why = anyio.current_time(), str(why)
        self._judge()
        backoff = Backoff(self._random, PAUSE_FIRST_MS, PAUSE_LAST_MS)
        while True:
            yield from pause(anyio.current_time() + backoff.next_s())
            try:
                yield self._store.reconnect
                yield partial(self._store.apply, [RenewAll()], self._clock.now_ms())
            except (StoreAway, Busy, NoSpace) as still:
                self._why = str(still)
            else:
                break
        self._since_s = None
        self._judge()

    def _judge(self) -> None:
        """Report in /health since when the store has been away."""
        if self._since_s is None:
            self._health.clear(CONDITION)
            return
        away_s = int(anyio.current_time() - self._since_s)
        since = f" for {away_s} s" if away_s else ""
        self._health.fail(
            CONDITION,
            f"the store is away{since}: {self._why or 'no connection'}; requests wait and nothing is lost: mend the "
            "database, or the network to it",
        )
