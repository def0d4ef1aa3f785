"""World of a batch: the loaded rows, with the changes that the batch's commands have made so far.

Deciders read from the World. They assign to a job's fields only after `change`, and call `update_standing` if state or
delay have changed; they change all other rows with the World's writers (`add_job`, `append`, `note` and so on). The
World computes the counters (`tallies`) and each job's `gate` from the job's state and delay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from msgspec.structs import replace

from airunner.broker.lifecycle.commands import Appended, Done, MintedJob, News, StoreReply, Timings
from airunner.broker.lifecycle.replaying import stdin_in
from airunner.broker.lifecycle.tallies import ENDED, Standing, Tallies, standing_of
from airunner.broker.store.contract import Engine, Waiting
from airunner.broker.store.needs import meets
from airunner.broker.store.rows import (
    STDIN_SEQUENCE,
    Changes,
    JobRow,
    Loaded,
    QueueKey,
    Record,
    SecretRow,
    Segment,
    Usage,
)
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import CorruptLog, NotFound, StaleToken
from airunner.protocol.events import BrokerBody, EventSegment, encode_bodies
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import decode_spec
from airunner.protocol.message import LeaseRef
from airunner.protocol.names import RequestId, token_hash
from airunner.protocol.replies import QueueMode

POINTS_PER_UNIT: Final = 16  # points of work in a unit: a point is some 6 µs, as measured
READ_POINTS: Final = 1  # points of reading a row
WRITE_POINTS: Final = 2  # points of writing a row
RECORD_BYTES: Final = 256  # bytes that an idempotency record counts in a tenant's usage
QUEUE_BYTES: Final = 256  # bytes that a paused or drained queue counts in a tenant's usage

STDIN_BYTES_A_POINT: Final = 2_048  # bytes of a standard input that are written in a point: 1 MiB takes 3.5 ms

_Place = tuple[int, int, JobRow]  # place of a job in its queue: the negative of its priority, then its number


class Undecodable(Exception):
    """Undecodable spec of a stored job: the job has to be set aside, and the batch decided again without it."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


class World:
    """World of one batch, at the instant `now_ms`; of the `engine` only secrets and a job's segments are looked up."""

    def __init__(self, loaded: Loaded, now_ms: int, engine: Engine) -> None:
        self.now_ms = now_ms
        self.broker = engine.broker
        self.brokers, self.adopted = loaded.brokers, loaded.adopted
        self._damaged, self._unreadable = loaded.damaged, loaded.unreadable
        self.news = News()  # of the command that is being decided
        self.timings = Timings()
        self._points = 0
        self._look_up_boxes = engine.boxes
        self._log = engine.segments
        self._announces = engine.announces
        self._changes = Changes()
        self._numbers, self._numbers_used = loaded.numbers, 0
        self._jobs: dict[str, JobRow] = {}
        self._changed: dict[int, tuple[JobRow, JobRow] | None] = {}  # by number; None: the job is new
        self._removed: set[int] = set()
        self._due: list[JobRow] = []
        self._grants: dict[tuple[str, RequestId], list[JobRow]] = {}
        self._places: dict[tuple[str, str, str], list[_Place]] = {}
        self._cut: set[QueueKey] = set()  # those of which more jobs may wait than were loaded
        self._more: frozenset[QueueKey] = frozenset()  # those of which the engine may have missed jobs
        self._locked: frozenset[QueueKey] = frozenset()  # those of which other brokers' batches have locked jobs
        self._records = {(record.tenant, record.request_id): record for record in loaded.records}
        self._modes: dict[tuple[str, str, str], QueueMode] = dict(loaded.modes.items())
        self._tallies = Tallies()
        self._hashes: dict[bytes, bytes] = {}
        self._boxes: dict[tuple[str, str], dict[str, SecretRow]] = {}
        for job in loaded.jobs:
            self._jobs[job.job_id] = job
            if job.lease_request is not None:
                self._grants.setdefault((job.tenant, job.lease_request), []).append(job)
        self._tallies.adopt(loaded)

    def begin(self) -> None:
        """Begin the next command, with no news and no work yet."""
        self.news = News()
        self._points = 0

    def done(self, reply: StoreReply | None, work: int = 0) -> Done:
        """Make the outcome of the command; `work`: rows that the engine read or wrote for it outside of the World."""
        return Done(reply, self.news, 1 + (self._points + work) // POINTS_PER_UNIT)

    # --- what was loaded ---

    def adopt_waiting(self, waiting: Waiting, wanted: Mapping[QueueKey, int]) -> None:
        """Add loaded jobs that may be leased, of a queue and needs up to as many as `wanted`, in their order."""
        for row in waiting.jobs:
            job = self._adopted(row)
            self._places.setdefault((job.tenant, job.queue, job.needs), []).append((-job.priority, job.number, job))
        self._cut = {key for key, most in wanted.items() if len(self._places.get(key, ())) >= most}
        self._more, self._locked = waiting.more, waiting.locked

    def adopt_due(self, rows: Iterable[JobRow]) -> None:
        """Add loaded jobs whose lease or delay is over."""
        self._due = [self._adopted(row) for row in rows]

    def _adopted(self, row: JobRow) -> JobRow:
        job = self._jobs.setdefault(row.job_id, row)
        if not job.spec:
            job.spec = row.spec
        return job

    # --- readers ---

    def job(self, tenant: str, job_id: str) -> JobRow:
        """Find a job. Raises `NotFound`, `CorruptLog`."""
        self._points += READ_POINTS
        job = self._jobs.get(job_id)
        if job_id in self._damaged:
            raise CorruptLog
        if job is None or job.tenant != tenant:
            raise NotFound
        return job

    def job_of(self, tenant: str, lease: LeaseRef) -> JobRow:
        """Find the job whose last attempt `lease` names, running or ended.

        Raises `NotFound`, `StaleToken`, `CorruptLog`.
        """
        job = self.job(tenant, lease.job_id)
        if job.attempt != lease.attempt or job.token_hash != self._hash(lease.task_token):
            raise StaleToken
        return job

    def _hash(self, token: bytes) -> bytes:
        """Hash a token; cached, because a request with last events and their completion has the token twice."""
        found = self._hashes.get(token)
        if found is None:
            found = self._hashes[token] = token_hash(token)
        return found

    def spec(self, job: JobRow) -> JobSpec:
        """Decode the job's spec. Raises `Undecodable`."""
        assert job.spec, "the keys of the batch did not request this spec"
        try:
            return decode_spec(job.spec)
        except UNDECODABLE as error:
            raise Undecodable(job.job_id) from error

    def granted(self, tenant: str, request_id: RequestId) -> list[JobRow]:
        """Find the jobs whose last lease this request was granted, in order of submission. Raises `CorruptLog`."""
        self._require_readable(tenant, request_id)
        found = self._grants.get((tenant, request_id), ())
        still = [job for job in found if job.lease_request == request_id and job.number not in self._removed]
        return sorted(still, key=lambda job: job.number)

    def due(self) -> list[JobRow]:
        """List jobs whose lease or delay was over when the batch began."""
        return self._due

    def record(self, tenant: str, request_id: RequestId) -> Record | None:
        """Find the idempotency record of a request. Raises `CorruptLog`."""
        self._require_readable(tenant, request_id)
        return self._records.get((tenant, request_id))

    def _require_readable(self, tenant: str, request_id: RequestId) -> None:
        self._points += READ_POINTS
        if (tenant, request_id) in self._unreadable:
            raise CorruptLog

    def mode(self, tenant: str, queue: str) -> QueueMode | None:
        """Find the mode of a queue; None: no such queue is stored, so it is open and has no jobs."""
        self._points += READ_POINTS
        return self._modes.get((tenant, queue, ""))

    def kinds(self, tenant: str, queue: str) -> dict[str, int]:
        """Count the jobs with needs in a queue that have not ended, by needs."""
        found = self._tallies.kinds(tenant, queue)
        self._points += len(found) * READ_POINTS
        return found

    def kinds_of(self, tenant: str) -> int:
        """Count the kinds of jobs of a tenant in all queues."""
        return self._tallies.kinds_of(tenant)

    def usage(self, tenant: str) -> Usage:
        """Find the usage of a tenant."""
        self._points += READ_POINTS
        return self._tallies.usage(tenant)

    def boxes(self, tenant: str, queue: str) -> dict[str, SecretRow]:
        """Look up the sealed secrets of a queue, by name."""
        found = self._boxes.get((tenant, queue))
        if found is None:
            found = self._boxes[tenant, queue] = self._look_up_boxes(tenant, queue)
        self._points += len(found) * READ_POINTS
        return found

    def stdin(self, job: JobRow) -> bytes:
        """Look up the standard input of a job that has one. Raises `CorruptLog`."""
        self._points += READ_POINTS
        return stdin_in(self._log(job.number, STDIN_SEQUENCE))

    def ready(self, tenant: str, queue: str) -> set[QueueKey]:
        """Find the needs in a queue with which a job may be leased now."""
        kinds = (QueueKey(tenant, queue, needs) for needs in ("", *self.kinds(tenant, queue)))
        return {key for key in kinds if self._first(key) is not None}

    def take_waiting(self, tenant: str, queue: str, facts: frozenset[str], most: int) -> tuple[list[JobRow], bool]:
        """Take the first jobs of a queue that an agent with these tags may run; tell also whether no other is left."""
        kinds = (QueueKey(tenant, queue, needs) for needs in self.kinds(tenant, queue) if meets(facts, needs))
        keys = [QueueKey(tenant, queue), *kinds]
        heads = [(first, key) for key in keys if (first := self._first(key)) is not None]
        heapify(heads)
        taken: list[JobRow] = []
        while heads and len(taken) < most:
            (_, _, job), key = heappop(heads)
            taken.append(job)
            heappop(self._places[key])
            if (following := self._first(key)) is not None:
                heappush(heads, (following, key))
        if len(taken) == most:
            return taken, not (heads or self._cut.intersection(keys))
        self.news.locked |= self._locked.intersection(keys)
        return taken, self._more.isdisjoint(keys)

    def _first(self, key: QueueKey) -> _Place | None:
        places = self._places.get(key)
        while places:
            if not places[0][2].gate:
                return places[0]
            heappop(places)
        return None

    def require_sound(self, minted: Iterable[MintedJob]) -> None:
        """Require that new jobs with these ids can be stored. Raises `CorruptLog`: damage prevents it."""
        if self._damaged and any(job.job_id in self._damaged for job in minted):
            raise CorruptLog

    # --- writers ---

    def add_job(self, job: JobRow, facts: Sequence[bytes]) -> None:
        """Add a job, and index it by these facts (hashes of its metadata)."""
        job.number = self._numbers[self._numbers_used]
        self._numbers_used += 1
        self._changed[job.number] = None
        self._jobs[job.job_id] = job
        self._changes.added.append(job)
        if facts:
            self._changes.facts += [(job.tenant, fact, job.number) for fact in facts]
        self.account(job.tenant, len(job.spec))
        self._points += WRITE_POINTS * (1 + len(facts))
        self._modes.setdefault((job.tenant, job.queue, ""), QueueMode.OPEN)
        job.gate = 1
        self.update_standing(job, ENDED)

    def add_stdin(self, job: JobRow, stdin: bytes) -> None:
        """Store the standard input of a new job; see `contract.STDIN_SEQUENCE`."""
        self._add_segment(job, STDIN_SEQUENCE, 1, stdin, self.now_ms)
        self._points += len(stdin) // STDIN_BYTES_A_POINT

    def change(self, job: JobRow) -> Standing:
        """Register that a job will be changed; return its standing, for `update_standing` if state or delay change."""
        if job.number not in self._changed:
            self._changed[job.number] = (replace(job), job)
        self._points += WRITE_POINTS
        return standing_of(job)

    def update_standing(self, job: JobRow, before: Standing) -> None:
        """Update the job's gate and the counters after its state or delay has changed."""
        after = standing_of(job)
        if not after.gate and job.gate:
            self._may_be_leased(job)
        job.gate = after.gate
        if after is not before:
            self._tallies.update_standing(job, before, after)

    def _may_be_leased(self, job: JobRow) -> None:
        key: tuple[str, str, str] = (job.tenant, job.queue, job.needs)  # equal to its QueueKey, and faster to make
        if key not in self.news.ready:
            self.news.ready.add(QueueKey(*key))
        self._place(key, job)

    def put_back(self, jobs: Iterable[JobRow]) -> None:
        """Put back jobs that `take_waiting` has taken and that were not leased."""
        for job in jobs:
            self._place((job.tenant, job.queue, job.needs), job)

    def _place(self, key: tuple[str, str, str], job: JobRow) -> None:
        places = self._places.get(key)
        if places is None:
            places = self._places[key] = []
        heappush(places, (-job.priority, job.number, job))

    def append(self, job: JobRow, count: int, raw: bytes, latest_ms: int, *, by_broker: bool = False) -> None:
        """Append encoded events to the job's log; `latest_ms`: their latest timestamp; `by_broker`: not its agent's."""
        first = job.last_sequence + 1
        job.last_sequence += count
        self._add_segment(job, first, count, raw, latest_ms)
        run = EventSegment(first_sequence=first, count=count, attempt=job.attempt, events=raw)
        self.news.appended.append(Appended(job.watch_key, run))
        if by_broker and self._announces:
            self._changes.lifecycle += [(job.number, sequence) for sequence in range(first, first + count)]

    def _add_segment(self, job: JobRow, first_sequence: int, count: int, raw: bytes, latest_ms: int) -> None:
        self._changes.segments.append(
            Segment(
                number=job.number,
                first_sequence=first_sequence,
                count=count,
                attempt=job.attempt,
                last_timestamp_ms=latest_ms,
                events=raw,
            )
        )
        self._tallies.bytes_added[job.tenant] += len(raw)
        self._points += WRITE_POINTS

    def write(self, job: JobRow, bodies: list[BrokerBody]) -> None:
        """Append events of the broker to the job's log."""
        self.append(job, len(bodies), encode_bodies(bodies), self.now_ms, by_broker=True)

    def lease(self, job: JobRow, request_id: RequestId) -> None:
        """Record the request to which the job's lease is granted."""
        job.lease_request = request_id
        self._grants.setdefault((job.tenant, request_id), []).append(job)

    def note(self, record: Record) -> None:
        """Store an idempotency record."""
        self._records[record.tenant, record.request_id] = record
        self._changes.records.append(record)
        self.account(record.tenant, RECORD_BYTES)
        self._points += WRITE_POINTS

    def set_mode(self, tenant: str, queue: str, mode: QueueMode) -> None:
        """Set a queue's mode."""
        key = QueueKey(tenant, queue)
        self._modes[key] = self._changes.modes[key] = mode
        self._points += WRITE_POINTS

    def set_secret(self, secret: SecretRow) -> None:
        """Store a sealed secret; it replaces a secret of the same name."""
        self.boxes(secret.tenant, secret.queue)[secret.name] = secret
        self._forget_secret_changes(secret.tenant, secret.queue, secret.name)
        self._changes.secrets.append(secret)
        self._points += WRITE_POINTS

    def remove_secret(self, secret: SecretRow) -> None:
        """Remove a sealed secret."""
        del self.boxes(secret.tenant, secret.queue)[secret.name]
        self._forget_secret_changes(secret.tenant, secret.queue, secret.name)
        self._changes.secrets_removed.append((secret.tenant, secret.queue, secret.name))
        self._points += WRITE_POINTS

    def _forget_secret_changes(self, *name: str) -> None:
        """Forget earlier changes of a secret: only its last change is saved."""
        changes = self._changes
        changes.secrets = [row for row in changes.secrets if (row.tenant, row.queue, row.name) != name]
        changes.secrets_removed = [removed for removed in changes.secrets_removed if removed != name]

    def remove_job(self, job: JobRow) -> bool:
        """Remove a job that has ended; False: it has been removed already."""
        if job.number in self._removed:
            return False
        self._removed.add(job.number)
        self._changed.pop(job.number, None)
        self._jobs.pop(job.job_id, None)
        self._changes.removed.append(job)
        self.account(job.tenant, -len(job.spec))
        self._points += 2 * WRITE_POINTS
        return True

    def account(self, tenant: str, size_bytes: int) -> None:
        """Account for `size_bytes` that a tenant's data takes in addition (negative: freed)."""
        self._tallies.bytes_added[tenant] += size_bytes

    def add_work(self, points: int) -> None:
        """Add points of work that the World does not count by itself."""
        self._points += points

    def changes(self) -> Changes:
        """Collect all changes of the batch."""
        changes = self._changes
        changes.changed = [pair for pair in self._changed.values() if pair is not None]
        rows = [after for _, after in changes.changed]
        assert [row.gate for row in rows] == [standing_of(row).gate for row in rows], "`update_standing` was not called"
        self._tallies.save(changes)
        return changes
