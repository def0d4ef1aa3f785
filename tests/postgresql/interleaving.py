"""Interleavings of two brokers' batches: each has two trips to the server, and these are let go in any order.

A trip that waits for a lock goes on in its thread while the other broker has its turn. That it waits is seen in the
server's list of sessions and what blocks them, and not by the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Final

import psycopg

from airunner.broker.lifecycle.commands import Applied, Command
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Moved
from airunner.broker.store.postgres.engine import PostgresEngine

SERIAL: Final = ((0, 0, 1, 1), (1, 1, 0, 0))
INTERLEAVED: Final = ((0, 1, 0, 1), (0, 1, 1, 0), (1, 0, 1, 0), (1, 0, 0, 1))
"""Orders of the trips of broker 0 and broker 1. A turn of a broker whose trip waits is lost: it goes on later."""
Trip = Callable[..., Any]


class Stepped:
    """Broker whose trips are let go one by one; `server`: a connection to ask whether its session waits."""

    def __init__(self, engine: PostgresEngine, server: psycopg.Connection[Any]) -> None:
        self.engine = engine
        self.deadlocks = 0
        self._server = server
        self._thread = ThreadPoolExecutor(1)
        self._go = SimpleQueue[None]()
        self._ready = SimpleQueue[None]()  # the next trip is about to start, or all is over
        self._underway = False  # a trip was let go and has not ended
        self.over = False
        self._batch = Future[Applied]()

    def begin(self, commands: Sequence[Command], now_ms: int) -> None:
        """Begin a batch, up to its first trip."""
        self.over = False
        self._batch = self._thread.submit(self._apply, commands, now_ms)
        self._ready.get()

    def _apply(self, commands: Sequence[Command], now_ms: int) -> Applied:
        trips, send = self.engine._trips, self.engine._trips.send

        def sent(*, committing: bool = False) -> Any:
            self._ready.put(None)
            self._go.get()
            try:
                return send(committing=committing)
            except Moved as moved:
                self.deadlocks += isinstance(moved.__cause__, psycopg.errors.DeadlockDetected)
                raise

        vars(trips)["send"] = sent
        try:
            return Store(self.engine).apply(commands, now_ms)
        finally:
            del vars(trips)["send"]
            self.over = True
            self._ready.put(None)

    def step(self) -> None:
        """Let the next trip go, and return when it is over, or waits for the other broker."""
        if self.over:
            return
        if not self._underway:
            self._go.put(None)
            self._underway = True
        pid = self.engine._trips.link.connection.info.backend_pid
        while self._underway and self._ready.empty():
            if self._server.execute("SELECT pg_blocking_pids(%s) != '{}'", (pid,)).fetchall() == [(True,)]:
                return
        self._ready.get()
        self._underway = False

    def applied(self) -> Applied:
        """Return what came of the batch."""
        return self._batch.result()

    def run(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Apply a batch at once."""
        return self._thread.submit(Store(self.engine).apply, commands, now_ms).result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()
