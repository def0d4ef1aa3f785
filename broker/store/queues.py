"""Queues in SQL: their modes, and what is in them."""

from __future__ import annotations

from typing import Final, NamedTuple

from airunner.broker.store.answers import answered, note_answer
from airunner.broker.store.contract import Ask, Outcome, QueueKey
from airunner.broker.store.rows import Database, fetch_all, fetch_one
from airunner.protocol.messages import PAGE_SIZE_MAX, ListQueues, QueuesListed, QueueUpdated, UpdateQueue
from airunner.protocol.queues import QueueMode, QueueSummary

_OLDEST_OF_NEXT_PRIORITY: Final = (
    "SELECT priority, submitted_ms FROM job"
    " WHERE tenant = ? AND queue = ? AND state = 'SCHEDULED' AND due_ms IS NULL AND priority < ?"
    " ORDER BY priority DESC, number LIMIT 1"
)
_ABOVE_ALL: Final = 1_000  # more than any priority


class _Row(NamedTuple):
    name: str
    mode: QueueMode
    waiting: int
    delayed: int
    running: int


class _Oldest(NamedTuple):
    priority: int
    submitted_ms: int


class Queues:
    """Reads and sets queues over `connection`, within the caller's transaction."""

    def __init__(self, connection: Database) -> None:
        self._connection = connection

    def mode(self, tenant: str, queue: str) -> QueueMode:
        """What the queue lets happen; one that was never heard of is open."""
        mode = self._connection.execute("SELECT mode FROM queue WHERE tenant = ? AND name = ?", (tenant, queue)).get
        return QueueMode.OPEN if mode is None else QueueMode(str(mode))

    def update(self, ask: Ask, request: UpdateQueue, now_ms: int) -> Outcome:
        """Set the mode; what waits may be leased from here on, unless the queue is paused.

        A late copy of a request that was answered changes nothing: a newer one may have come since.

        Raises `Conflict`.
        """
        tenant = ask.tenant
        if answered(self._connection, ask, request) is not None:
            return Outcome(reply=QueueUpdated(queue=request.queue, mode=request.mode))
        note_answer(self._connection, ask, request, (), now_ms)
        self._connection.execute(
            "INSERT INTO queue (tenant, name, mode) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET mode = excluded.mode",
            (tenant, request.queue, request.mode),
        )
        if request.mode is QueueMode.OPEN:
            self._connection.execute(
                "DELETE FROM queue WHERE tenant = ? AND name = ? AND waiting = 0 AND running = 0"
                " AND NOT EXISTS (SELECT 1 FROM job WHERE tenant = ? AND queue = ?)",
                (tenant, request.queue, tenant, request.queue),
            )
        leases = request.mode is not QueueMode.PAUSED
        return Outcome(
            reply=QueueUpdated(queue=request.queue, mode=request.mode),
            ready=frozenset({QueueKey(tenant, request.queue)}) if leases else frozenset(),
        )

    def list(self, tenant: str, request: ListQueues) -> QueuesListed:
        """A page, by name; one row more than the page is read to know whether another follows."""
        rows = fetch_all(
            self._connection,
            _Row,
            "SELECT name, mode, waiting, delayed, running FROM queue"
            " WHERE tenant = ? AND name > ? ORDER BY name LIMIT ?",
            (tenant, request.after or "", PAGE_SIZE_MAX + 1),
        )
        return QueuesListed(
            queues=tuple(
                QueueSummary(
                    queue=row.name,
                    mode=row.mode,
                    waiting=row.waiting,
                    running=row.running,
                    delayed=row.delayed,
                    oldest_ms=self._oldest_ms(tenant, row.name),
                )
                for row in rows[:PAGE_SIZE_MAX]
            ),
            more=len(rows) > PAGE_SIZE_MAX,
        )

    def _oldest_ms(self, tenant: str, queue: str) -> int | None:
        """The index has the oldest of each priority at hand: so many steps, however long the queue is."""
        oldest_ms: int | None = None
        below = _ABOVE_ALL
        while True:
            found = fetch_one(self._connection, _Oldest, _OLDEST_OF_NEXT_PRIORITY, (tenant, queue, below))
            if found is None:
                return oldest_ms
            below = found.priority
            oldest_ms = found.submitted_ms if oldest_ms is None else min(oldest_ms, found.submitted_ms)
