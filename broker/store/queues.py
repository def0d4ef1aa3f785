"""Queues in SQL: their modes, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from airunner.broker.store.answers import answered, note_answer
from airunner.broker.store.contract import Ask, Outcome, QueueKey
from airunner.broker.store.needs import NEEDS_MAX
from airunner.broker.store.rows import Database, fetch_all, fetch_one
from airunner.protocol.errors import BadRequest
from airunner.protocol.messages import PAGE_SIZE_MAX, ListQueues, QueuesListed, QueueUpdated, UpdateQueue
from airunner.protocol.queues import QueueMode, QueueSummary

_OLDEST_OF_NEXT_PRIORITY: Final = (
    "SELECT priority, submitted_ms FROM job"
    " WHERE tenant = ? AND queue = ? AND needs = ? AND state = 'SCHEDULED' AND due_ms IS NULL AND priority < ?"
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
        ready = {QueueKey(tenant, request.queue), *self._waiting(tenant, request.queue)} if leases else ()
        return Outcome(reply=QueueUpdated(queue=request.queue, mode=request.mode), ready=frozenset(ready))

    def take_needs(self, tenant: str, queue: str, wanted: set[str]) -> None:
        """Raises `BadRequest` where jobs with these needs would make more different ones wait than a lease looks at."""
        known = set(needs_in(self._connection, tenant, queue, "needs != ''"))
        if len(known | wanted - {""}) > NEEDS_MAX:
            raise BadRequest(
                f"the jobs that wait in queue {queue} require {NEEDS_MAX} different sets of tags already; "
                "use another queue, or fewer sets"
            )

    def _waiting(self, tenant: str, queue: str) -> list[QueueKey]:
        return [QueueKey(tenant, queue, needs) for needs in needs_in(self._connection, tenant, queue, "due_ms IS NULL")]

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
        """The index has the oldest of each need and priority at hand: so many steps, however long the queue is."""
        oldest_ms: int | None = None
        for needs in needs_in(self._connection, tenant, queue, "due_ms IS NULL"):
            values = (tenant, queue, needs, _ABOVE_ALL)
            while (found := fetch_one(self._connection, _Oldest, _OLDEST_OF_NEXT_PRIORITY, values)) is not None:
                values = (tenant, queue, needs, found.priority)
                oldest_ms = found.submitted_ms if oldest_ms is None else min(oldest_ms, found.submitted_ms)
        return oldest_ms


def needs_in(connection: Database, tenant: str, queue: str, which: str) -> Iterator[str]:
    """The different needs of the jobs that wait in a queue, in order: one look into an index for each."""
    first = f"SELECT needs FROM job WHERE tenant = ? AND queue = ? AND state = 'SCHEDULED' AND {which}"
    needs = connection.execute(f"{first} ORDER BY needs LIMIT 1", (tenant, queue)).get
    while needs is not None:
        yield str(needs)
        needs = connection.execute(f"{first} AND needs > ? ORDER BY needs LIMIT 1", (tenant, queue, str(needs))).get
