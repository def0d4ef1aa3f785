"""Pages of lists and logs, read outside of transactions, and boxes. A page that meets damage raises `CorruptLog`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import apsw
import msgspec

from airunner.broker.store.contract import ABOVE_ALL_CHARACTERS, JobFilter, Page
from airunner.broker.store.rows import JobRow, QueueCounts, QueueKey, QueueRow, SecretRow, Segment
from airunner.broker.store.sqlite.rows import COLUMNS, Damaged, Row, RowReader, Values
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import CorruptLog
from airunner.protocol.names import JobId

_ABOVE_ALL: Final = 2**62  # larger than the number of any job
_LOWEST: Final = (
    "SELECT number, job_id FROM job WHERE number = (SELECT number FROM job INDEXED BY {}"
    " WHERE tenant = ? {} AND number < ? ORDER BY number DESC LIMIT 1 OFFSET ?)"
)
_QUEUES: Final = (
    "SELECT name, mode, waiting, delayed, running, (SELECT submitted_ms FROM job INDEXED BY job_oldest"
    " WHERE job.tenant = queue.tenant AND job.queue = queue.name AND gate = 0 ORDER BY number LIMIT 1)"
    " FROM queue WHERE tenant = ? AND name > ? AND {which} ORDER BY name LIMIT ?"
)
_READY: Final = (
    "SELECT ?1, queue, needs, (SELECT count(*) FROM (SELECT 1 FROM job INDEXED BY job_waiting WHERE tenant = ?1"
    " AND job.queue = kinds.queue AND job.needs = kinds.needs AND gate = 0 LIMIT ?3)) FROM"
    " (SELECT name AS queue, '' AS needs FROM queue WHERE tenant = ?1 AND name > '' UNION ALL"
    " SELECT queue, needs FROM kind WHERE tenant = ?1 ORDER BY queue, needs LIMIT ?2) AS kinds"
)
_TOTALS: Final = (
    "SELECT ifnull(sum(waiting), 0), ifnull(sum(delayed), 0), ifnull(sum(running), 0)"
    " FROM (SELECT waiting, delayed, running FROM queue WHERE name > '' LIMIT ?)"
)
_SECRETS: Final = (
    "SELECT tenant, queue, name, x'', set_ms FROM secret WHERE tenant = ? AND (queue, name) > (?, ?)"
    " AND queue = ifnull(?, queue) AND {which} ORDER BY queue, name LIMIT ?"
)
_BOXES: Final = "SELECT tenant, queue, name, box, set_ms FROM secret WHERE tenant = ? AND queue = ?"
_LEASES: Final = (
    "SELECT agent, count(*) FROM job INDEXED BY job_deadline WHERE deadline_ms IS NOT NULL AND tenant = ?"
    " AND agent IS NOT NULL GROUP BY agent"
)
_SEGMENTS: Final = (
    "SELECT number, first_sequence, count, attempt, last_timestamp_ms, iif(last_timestamp_ms < ?3, x'', events)"
    " FROM segment WHERE number = ?1 AND first_sequence >= ifnull((SELECT max(first_sequence) FROM segment"
    " WHERE number = ?1 AND first_sequence <= ?2), 0) ORDER BY first_sequence"
)
_HAS_FACT: Final = "EXISTS (SELECT 1 FROM metadata WHERE tenant = ? AND fact = ? AND number = job.number)"


class PageReader(RowReader):
    """Reader of pages; see `contract.Engine`."""

    def jobs(self, wanted: JobFilter, before: int | None, skip: int, limit: int, looked_max: int) -> Page:
        found, number, values, last = self._found(wanted, before, looked_max, bounded=skip + limit > looked_max)
        ordered = f"SELECT {COLUMNS} {found} ORDER BY {number} DESC LIMIT ? OFFSET ?"
        rows = self._page(list[JobRow], ordered, (*values, limit, skip))
        if last is None or len(rows) == limit:
            return Page(jobs=rows)
        if skip and not rows:
            ((skip,),) = self._page(list[tuple[int]], f"SELECT count(*) {found}", values)
        return Page(jobs=rows, stopped_at=last, skipped=skip)

    def count(self, wanted: JobFilter, limit: int, looked_max: int) -> tuple[int, bool]:
        found, _, values, last = self._found(wanted, None, looked_max)
        counted = f"SELECT count(*) FROM (SELECT 1 {found} LIMIT ?)"
        ((jobs,),) = self._page(list[tuple[int]], counted, (*values, limit + 1))
        return min(jobs, limit), last is not None or jobs > limit

    def queues(self, tenant: str, after: str, names: frozenset[str] | None, limit: int) -> list[QueueRow]:
        which, *chosen = _within("name", names)
        return self._page(list[QueueRow], _QUEUES.format(which=which), (tenant, after, *chosen, limit))

    def ready(self, tenant: str, limit: int, counted_max: int) -> dict[QueueKey, int]:
        rows = self._page(list[tuple[str, str, str, int]], _READY, (tenant, limit, counted_max))
        return {QueueKey(*key): jobs for *key, jobs in rows}

    def totals(self, queues_max: int) -> QueueCounts:
        return self._page(list[QueueCounts], _TOTALS, (queues_max,))[0]

    def secrets(
        self, tenant: str, queue: str | None, after: tuple[str, str], names: frozenset[str] | None, limit: int
    ) -> list[SecretRow]:
        which, *chosen = _within("queue", names)
        return self._page(list[SecretRow], _SECRETS.format(which=which), (tenant, *after, queue, *chosen, limit))

    def leases(self, tenant: str) -> dict[str, int]:
        return dict(self._page(list[tuple[str, int]], _LEASES, (tenant,)))

    def segments(self, number: int, sequence: int, from_timestamp_ms: int | None = None) -> Iterator[Segment]:
        try:
            for row in self._db.execute(_SEGMENTS, (number, sequence, from_timestamp_ms or 0)):
                self._looked += 1
                yield msgspec.convert(row, Segment)
        except (apsw.Error, *UNDECODABLE) as error:
            if isinstance(judged := self._judged(error), Damaged):
                raise CorruptLog from error
            raise judged from error

    def boxes(self, tenant: str, queue: str) -> dict[str, SecretRow]:
        return {secret.name: secret for secret in self._page(list[SecretRow], _BOXES, (tenant, queue))}

    def _page(self, kind: type[list[Row]], sql: str, values: Values) -> list[Row]:
        """Read the rows of a page. Raises `CorruptLog`."""
        try:
            return self._fetch(kind, sql, (values,))
        except Damaged as error:
            raise CorruptLog from error

    def _found(
        self, wanted: JobFilter, before: int | None, looked_max: int, *, bounded: bool = False
    ) -> tuple[str, str, Values, JobId | None]:
        """Build FROM and WHERE for a filter; return both, the order column, the values, and the last job to search.

        Jobs are read from the index of the first fact, if any; further facts are looked up for each job. The last job
        is the last of `looked_max` if no index has the matching jobs in order, or with `bounded`; otherwise None.
        """
        tenant, facts = wanted.tenant, wanted.facts
        source, number = "job", "job.number"
        asked: list[Values] = [("job.tenant = ?", tenant)]
        (state,) = wanted.states if len(wanted.states) == 1 else (None,)
        equal = {"queue": wanted.queue, "state": state, "owner": wanted.owner}
        asked += [(f"job.{column} = ?", value) for column, value in equal.items() if value is not None]
        if len(wanted.states) > 1:
            asked.append(_within("+job.state", frozenset(wanted.states)))
        if wanted.owner is not None:
            asked.append(("job.owner != ''",))  # without it SQLite does not use the partial index `job_by_owner`
        asked.append(_within("+job.queue", wanted.queues))  # plus: SQLite must not use an index in another order
        if wanted.prefix is not None:  # few jobs have it: they are searched, whatever else is asked, and then sorted
            source = "job INDEXED BY sqlite_autoindex_job_1"
            asked.append(("job.job_id >= ? AND job.job_id < ?", wanted.prefix, wanted.prefix + ABOVE_ALL_CHARACTERS))
        elif facts:
            source, number = "metadata AS found CROSS JOIN job ON job.number = found.number", "found.number"
            asked.append(("found.tenant = ? AND found.fact = ?", tenant, facts[0]))
        asked += [(_HAS_FACT, tenant, fact) for fact in (facts if wanted.prefix is not None else facts[1:])]
        if before is not None:
            asked.append((f"{number} < ?", before))
        things = (wanted.queue is not None or state is not None) + (wanted.owner is not None) + len(facts)
        both = wanted.prefix is None and things == 1 and wanted.queue is not None and state is not None
        states = (state,) if both else ()  # the queue's jobs are looked for among all of this state
        source = "job INDEXED BY job_by_state" if both else source
        last: list[tuple[int, JobId]] = []
        scoped = wanted.queues is not None and wanted.queue is None
        if wanted.prefix is None and (bounded or both or things > 1 or len(wanted.states) > 1 or scoped):
            lowest = _LOWEST.format(*(("job_by_state", "AND job.state = ?") if both else ("job_listed", "")))
            key = (tenant, *states, _ABOVE_ALL if before is None else before, looked_max - 1)
            last = self._page(list[tuple[int, JobId]], lowest, key)
            asked += [(f"{number} >= ?", lowest) for lowest, _ in last]
        where = " AND ".join(condition for condition, *_ in asked)
        values = tuple(value for _, *some in asked for value in some)
        return f"FROM {source} WHERE {where}", number, values, last[0][1] if last else None


def _within(column: str, names: frozenset[str] | None) -> tuple[str, ...]:
    """Build the condition that `column` is one of `names` (None: any), followed by its values."""
    if names is None:
        return ("TRUE",)
    return f"{column} IN ({', '.join('?' * len(names))})", *sorted(names)
