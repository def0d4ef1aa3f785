"""Queues in SQL: their modes, and what is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from airunner.broker.store.contract import Ask, Outcome, QueueKey
from airunner.broker.store.needs import NEEDS_MAX, TENANT_NEEDS_MAX
from airunner.broker.store.room import Room
from airunner.broker.store.sqlite.idempotency import answered, note_answer
from airunner.broker.store.sqlite.rows import Database, fetch_all, within
from airunner.broker.store.sqlite.schema import QUEUE_BYTES
from airunner.broker.store.sqlite.usage import Usage
from airunner.certs.principal import QueueScope
from airunner.protocol.errors import BadRequest, NoSpace
from airunner.protocol.messages import PAGE_SIZE_MAX, ListQueues, QueuesListed, QueueUpdated, UpdateQueue
from airunner.protocol.queues import QueueMode, QueueSummary

_OLDEST: Final = (
    "SELECT submitted_ms FROM job INDEXED BY job_oldest"
    " WHERE tenant = ? AND queue = ? AND state = 'SCHEDULED' AND due_ms IS NULL ORDER BY number LIMIT 1"
)
_HEADS: Final = (
    "SELECT need.needs, head.priority, head.number FROM need CROSS JOIN job AS head ON head.number ="
    " (SELECT number FROM job WHERE tenant = need.tenant AND queue = need.queue AND needs = need.needs"
    " AND state = 'SCHEDULED' AND due_ms IS NULL ORDER BY priority DESC, number LIMIT 1)"
    " WHERE need.tenant = ? AND need.queue = ?"
)
_KNOWN_NEED: Final = "SELECT 1 FROM need WHERE tenant = ? AND queue = ? AND needs = ?"


class _Row(NamedTuple):
    name: str
    mode: QueueMode
    waiting: int
    delayed: int
    running: int


class Head(NamedTuple):
    """The first job of a queue, of those that need so much."""

    needs: str
    priority: int
    number: int


class Queues:
    """Reads and sets queues over `connection`, within the caller's transaction."""

    def __init__(self, connection: Database, usage: Usage) -> None:
        self._connection = connection
        self._usage = usage

    def mode(self, tenant: str, queue: str) -> QueueMode:
        """What the queue lets happen; one that was never heard of is open."""
        return self._known(tenant, queue) or QueueMode.OPEN

    def _known(self, tenant: str, queue: str) -> QueueMode | None:
        mode = self._connection.execute("SELECT mode FROM queue WHERE tenant = ? AND name = ?", (tenant, queue)).get
        return None if mode is None else QueueMode(str(mode))

    def update(self, ask: Ask, request: UpdateQueue, now_ms: int) -> Outcome:
        """Set the mode; what waits may be leased from here on, unless the queue is paused.

        A late copy of a request that was answered changes nothing: a newer one may have come since.

        Raises `Conflict`; `NoSpace` and `Quota`, where it would begin to be kept without a job.
        """
        tenant = ask.tenant
        if answered(self._connection, ask, request) is not None:
            return Outcome(reply=QueueUpdated(queue=request.queue, mode=request.mode))
        before = self._known(tenant, request.queue)
        if before is None and request.mode is not QueueMode.OPEN:
            if ask.room < Room.AMPLE:
                raise NoSpace
            self._usage.require(tenant, 0, ask.quotas)
        else:
            self._usage.require_end(tenant, ask.quotas)
        kept = int(request.mode is not QueueMode.OPEN) - int(before not in (None, QueueMode.OPEN))
        self._usage.add(tenant, kept * QUEUE_BYTES)
        note_answer(self._connection, self._usage, ask, request, (), now_ms)
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

    def take_needs(self, tenant: str, wanted: Iterable[QueueKey]) -> None:
        """Raises `BadRequest` where jobs with these needs would make more different ones than a lease looks at."""
        new = [key for key in dict.fromkeys(wanted) if self._connection.execute(_KNOWN_NEED, key).get is None]
        for queue, count in Counter(key.queue for key in new).items():
            if self._needs("tenant = ? AND queue = ?", tenant, queue) + count > NEEDS_MAX:
                raise BadRequest(
                    f"the jobs in queue {queue} that have not ended require {NEEDS_MAX} different sets of tags "
                    "already; use another queue, or fewer sets"
                )
        if new and self._needs("tenant = ?", tenant) + len(new) > TENANT_NEEDS_MAX:
            raise BadRequest(
                f"the jobs in all queues that have not ended require {TENANT_NEEDS_MAX} different sets of tags "
                "already; use fewer sets, or fewer queues with them"
            )

    def _needs(self, where: str, *values: str) -> int:
        count = self._connection.execute(f"SELECT count(*) FROM need WHERE {where}", values).get
        assert isinstance(count, int), "a count"
        return count

    def _waiting(self, tenant: str, queue: str) -> list[QueueKey]:
        return [QueueKey(tenant, queue, head.needs) for head in heads(self._connection, tenant, queue)]

    def list(self, tenant: str, request: ListQueues, queues: QueueScope = None) -> QueuesListed:
        """A page of `queues`, by name; one row more than the page is read to know whether another follows."""
        which, names = within("name", queues)
        rows = fetch_all(
            self._connection,
            _Row,
            "SELECT name, mode, waiting, delayed, running FROM queue"
            f" WHERE tenant = ? AND name > ? AND {which} ORDER BY name LIMIT ?",
            (tenant, request.after or "", *names, PAGE_SIZE_MAX + 1),
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
        oldest_ms = self._connection.execute(_OLDEST, (tenant, queue)).get
        assert oldest_ms is None or isinstance(oldest_ms, int), "an instant is a number"
        return oldest_ms


def heads(connection: Database, tenant: str, queue: str) -> list[Head]:
    """The first of each kind of jobs that wait in a queue and need something."""
    return fetch_all(connection, Head, _HEADS, (tenant, queue))
