"""The event log in SQL: runs of events, densely numbered, exactly once."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from airunner.broker.store.contract import Appended
from airunner.broker.store.quotas import Quotas
from airunner.broker.store.room import Room
from airunner.broker.store.sqlite.damage import Aside, Damaged, about
from airunner.broker.store.sqlite.rows import Database, Values, fetch_one
from airunner.broker.store.sqlite.usage import Usage
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import BadRequest, CorruptLog, IndexGap, NoSpace, NotFound, Quota, StaleToken
from airunner.protocol.events import (
    BrokerBody,
    EventRun,
    check_batch,
    decode_bodies,
    encode_bodies,
    may_hold,
    without_first,
)
from airunner.protocol.job import JobState
from airunner.protocol.messages import (
    REPLAY_BYTES_MAX,
    REPLAY_RUNS_MAX,
    EventBatch,
    JobEventsReplayed,
    ReplayJobEvents,
)
from airunner.protocol.names import WatchKey, token_hash

LOOKED_BYTES_MAX: Final = 2 * REPLAY_BYTES_MAX  # times the kinds that are looked for: some 2 ms a MiB
KINDS_LOOKED_MAX: Final = 8  # who wants more kinds wants most of the log, and is sent all of it
RUNS_LOOKED_MAX: Final = 8_192  # for the first that is new enough; a few ms

# The fence stands in the statement that writes: nothing else is trusted to have looked.
_EXTEND: Final = (
    "UPDATE job SET last_sequence = last_sequence + ?, next_index = next_index + ?"
    " WHERE number = ? AND state = 'RUNNING' AND attempt = ? AND token_hash = ? AND next_index = ?"
)
_HOLDER: Final = (
    "SELECT number, queue, needs, watch_key, state, attempt, last_sequence, next_index, token_hash, settled,"
    " cancel_requested_ms, agents_lost, max_attempts FROM job WHERE job_id = ? AND tenant = ?"
)


class Holder(NamedTuple):
    """An attempt as the store knows it, shown to be its holder's by the token."""

    number: int
    queue: str
    needs: str
    watch_key: WatchKey
    state: JobState
    attempt: int
    last_sequence: int
    next_index: int
    token_hash: bytes | None
    settled: str | None
    cancel_requested_ms: int | None
    agents_lost: int
    max_attempts: int


class _Place(NamedTuple):
    number: int
    last_sequence: int
    state: JobState


class _StoredRun(NamedTuple):
    first_sequence: int
    events_count: int
    attempt: int
    events: bytes


@contextmanager
def _decoding() -> Generator[None]:
    """Raises `CorruptLog`, where what is stored is not what was."""
    try:
        yield
    except (BadRequest, *UNDECODABLE) as error:
        raise CorruptLog(f"a segment of this job's log cannot be decoded; {CorruptLog().message}") from error


class Log:
    """Appends to and reads from the logs over `connection`, within the caller's transaction."""

    def __init__(self, connection: Database, usage: Usage, aside: Aside) -> None:
        self._connection = connection
        self._usage = usage
        self._aside = aside

    def append(
        self,
        tenant: str,
        number: int,
        watch_key: WatchKey,
        attempt: int,
        last_sequence: int,
        bodies: Sequence[BrokerBody],
    ) -> Appended:
        """Put the broker's own events behind event `last_sequence` of a job, whose row counts them already."""
        raw = encode_bodies(list(bodies))
        self._usage.add(tenant, len(raw))
        return self._insert(number, watch_key, attempt, last_sequence + 1, len(bodies), raw, bodies[-1].timestamp_ms)

    def holder(self, tenant: str, job_id: str, attempt: int, task_token: bytes) -> Holder:
        """The attempt that `task_token` proves, whether it runs or has just ended.

        Raises `NotFound`, `StaleToken`, `CorruptLog`.
        """
        try:
            holder = fetch_one(self._connection, Holder, _HOLDER, (job_id, tenant))
        except (Damaged, *UNDECODABLE) as damaged:
            self._aside.met += 1
            raise CorruptLog from damaged
        if holder is None:
            raise NotFound
        if holder.number in self._aside:
            raise CorruptLog
        if holder.attempt != attempt or holder.token_hash != token_hash(task_token):
            raise StaleToken
        return holder

    def publish(
        self, tenant: str, batch: EventBatch, quotas: Quotas, *, last: bool = False, room: Room = Room.AMPLE
    ) -> tuple[int, Appended | None]:
        """Store what is not stored yet of `batch`; the attempt's next index, and what was appended.

        `last`: the end of the attempt comes with it, and it is small.

        Raises `NotFound`, `StaleToken`, `IndexGap`, `BadRequest`, `NoSpace`, `Quota`; then nothing is changed.
        """
        holder = self.holder(tenant, batch.job_id, batch.attempt, batch.task_token)
        next_index = batch.first_index + batch.count
        if batch.first_index > holder.next_index:
            raise IndexGap(expected_index=holder.next_index)
        if next_index <= holder.next_index:
            return holder.next_index, None
        if holder.state is not JobState.RUNNING:
            raise StaleToken
        if room < Room.RUNNING and not last:
            raise NoSpace(expected_index=holder.next_index)
        try:
            self._usage.require_log(tenant, quotas, last=last)
        except Quota as refused:
            refused.expected_index = holder.next_index
            raise
        bodies = check_batch(batch.events)
        if len(bodies) != batch.count:
            raise BadRequest(f"a batch of {batch.count} events holds {len(bodies)}")
        known = holder.next_index - batch.first_index
        raw = without_first(batch.events, known) if known else batch.events
        count = batch.count - known
        with about(holder.number):
            self._connection.execute(
                _EXTEND,
                (count, count, holder.number, batch.attempt, token_hash(batch.task_token), holder.next_index),
            )
        assert self._connection.changes() == 1, "the holder holds it still, in the same transaction"
        self._usage.add(tenant, len(raw))
        latest_ms = max(body.timestamp_ms for body in bodies[known:])
        appended = self._insert(
            holder.number, holder.watch_key, batch.attempt, holder.last_sequence + 1, count, raw, latest_ms
        )
        return next_index, appended

    def replay(self, tenant: str, request: ReplayJobEvents) -> JobEventsReplayed:
        """A page of one job's log.

        Raises `NotFound`; `CorruptLog`, where the log is not whole.
        """
        place = fetch_one(
            self._connection,
            _Place,
            "SELECT number, last_sequence, state FROM job WHERE job_id = ? AND tenant = ?",
            (request.job_id, tenant),
        )
        if place is None:
            raise NotFound
        with _decoding():
            start, beyond = self._start(place, request)
            runs = self._page(place.number, start, request.bytes_max, request.kinds) if start is not None else []
        if start is not None and start <= place.last_sequence and not runs:
            raise CorruptLog(f"event {start} of this job's log is missing; {CorruptLog().message}")
        return JobEventsReplayed(
            runs=tuple(runs),
            next_sequence=runs[-1].next_sequence if runs else beyond,
            last_sequence=place.last_sequence,
            finished=place.state.terminal,
        )

    def _start(self, place: _Place, request: ReplayJobEvents) -> tuple[int | None, int]:
        """The first sequence of the page; None where nothing is new enough, and then where to go on."""
        if request.from_timestamp_ms is None:
            return request.from_sequence, request.from_sequence
        first = self._first_run(place.number, request.from_sequence)
        end = self._connection.execute(
            "SELECT first_sequence FROM event WHERE number = ? AND first_sequence >= ?"
            " ORDER BY first_sequence LIMIT 1 OFFSET ?",
            (place.number, first, RUNS_LOOKED_MAX),
        ).get
        assert end is None or isinstance(end, int), "a sequence is a number"
        # The first such run may have its only new enough event before `from_sequence`: hence the loop.
        rows = self._runs(
            "first_sequence >= ? AND first_sequence < ? AND last_timestamp_ms >= ?",
            (place.number, first, end or place.last_sequence + 1, request.from_timestamp_ms),
        )
        for run in rows:
            for sequence, body in enumerate(decode_bodies(run.events), start=run.first_sequence):
                if sequence >= request.from_sequence and body.timestamp_ms >= request.from_timestamp_ms:
                    return sequence, sequence
        return None, max(request.from_sequence, end or place.last_sequence + 1)

    def _first_run(self, number: int, sequence: int) -> int:
        """The first sequence of the run that `sequence` is in."""
        first = self._connection.execute(
            "SELECT coalesce(max(first_sequence), 0) FROM event WHERE number = ? AND first_sequence <= ?",
            (number, sequence),
        ).get
        assert isinstance(first, int), "a sequence is a number"
        return first

    def _page(self, number: int, start: int, bytes_max: int, kinds: tuple[str, ...]) -> list[EventRun]:
        """The runs of a page; of some kinds alone, what holds none of them is joined into runs without events."""
        rows = self._runs("first_sequence >= ?", (number, self._first_run(number, start)))
        kinds = kinds if len(kinds) <= KINDS_LOOKED_MAX else ()
        looked_bytes_max = LOOKED_BYTES_MAX // max(2, len(kinds))
        runs: list[EventRun] = []
        size_bytes = looked_bytes = 0
        for looked, row in enumerate(rows):
            known = max(0, start - row.first_sequence)
            if known >= row.events_count:
                continue
            expected = runs[-1].next_sequence if runs else start
            if row.first_sequence + known != expected:
                raise CorruptLog(f"event {expected} of this job's log is missing; {CorruptLog().message}")
            raw = without_first(row.events, known) if known else row.events
            looked_bytes += len(raw)
            if kinds and not may_hold(raw, kinds):
                raw = b""
            size_bytes += len(raw)
            beyond = size_bytes > bytes_max or looked_bytes > looked_bytes_max
            if runs and (beyond or looked > REPLAY_RUNS_MAX or len(runs) == REPLAY_RUNS_MAX):
                break
            first_sequence = row.first_sequence + known
            count = row.events_count - known
            if runs and not (raw or runs[-1].events) and runs[-1].attempt == row.attempt:
                runs[-1] = replace(runs[-1], count=runs[-1].count + count)
                continue
            runs.append(EventRun(first_sequence=first_sequence, count=count, attempt=row.attempt, events=raw))
        return runs

    def _runs(self, where: str, values: Values) -> Iterator[_StoredRun]:
        """One by one: a page ends long before a long log does."""
        sql = f"SELECT first_sequence, count, attempt, events FROM event WHERE number = ? AND {where}"
        for row in self._connection.execute(sql + " ORDER BY first_sequence", values):
            yield msgspec.convert(row, _StoredRun)

    def _insert(
        self,
        number: int,
        watch_key: WatchKey,
        attempt: int,
        first_sequence: int,
        count: int,
        raw: bytes,
        latest_ms: int,
    ) -> Appended:
        with about(number):
            self._connection.execute(
                "INSERT INTO event (number, first_sequence, count, attempt, last_timestamp_ms, events)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (number, first_sequence, count, attempt, latest_ms, raw),
            )
        return Appended(watch_key, EventRun(first_sequence=first_sequence, count=count, attempt=attempt, events=raw))
