"""The World of a batch: its rows as they were loaded, and as the commands before have changed them.

Deciders read from it, and only its writers change anything: `add_job`, `change` with `moved`, `append`, `write`,
`note`, `set_mode`, `set_secret`, `remove_job`, `take`. The counters (`tallies`) follow from what becomes of each job,
and so does its `gate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from heapq import heapify, heappop, heappush
from typing import Final

from airunner.broker.lifecycle.commands import Appended, Done, MintedJob, News, StoreReply
from airunner.broker.lifecycle.tallies import ENDED, Standing, Tallies, gate_of, standing_of
from airunner.broker.store.contract import (
    Changes,
    JobRow,
    Loaded,
    QueueKey,
    Record,
    SecretRow,
    Segment,
    Usage,
)
from airunner.broker.store.needs import meets
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import CorruptLog, NotFound, StaleToken
from airunner.protocol.events import BrokerBody, EventSegment, encode_bodies
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import decode_spec
from airunner.protocol.names import RequestId, token_hash
from airunner.protocol.queues import QueueMode
from airunner.protocol.replies import LeaseRef

POINTS_PER_UNIT: Final = 16  # measured, in sixteenths of 100 µs
READ_POINTS: Final = 1
WRITE_POINTS: Final = 2
RECORD_BYTES: Final = 256  # what an idempotency record counts for in a tenant's usage
QUEUE_BYTES: Final = 256  # and a queue whose mode has to be remembered

Boxes = Callable[[str, str], dict[str, SecretRow]]
_Place = tuple[int, int, JobRow]  # in a queue: the negative of the priority, and the number


class Undecodable(Exception):
    """A job's stored spec cannot be decoded: the job is to be set aside, and the batch decided again."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


class World:
    """The rows of one batch, at the instant `now_ms`; `boxes` looks up the sealed secrets of a queue."""

    def __init__(self, loaded: Loaded, now_ms: int, boxes: Boxes) -> None:
        self.now_ms = now_ms
        self._damaged = loaded.damaged
        self._unreadable = loaded.unreadable
        self.news = News()  # of the command that is being decided
        self._points = 0
        self._look_up_boxes = boxes
        self._changes = Changes()
        self._next_number = self._first_number = loaded.next_number
        self._jobs: dict[str, JobRow] = {}
        self._changed: dict[int, tuple[JobRow, JobRow]] = {}
        self._removed: set[int] = set()
        self._due: list[JobRow] = []
        self._grants: dict[tuple[str, RequestId], list[JobRow]] = {}
        self._places: dict[tuple[str, str, str], list[_Place]] = {}
        self._records = {(record.tenant, record.request_id): record for record in loaded.records}
        self._modes: dict[tuple[str, str, str], QueueMode] = {}
        self._tallies = Tallies()
        self._hashes: dict[bytes, bytes] = {}
        self._boxes: dict[tuple[str, str], dict[str, SecretRow]] = {}
        for job in loaded.jobs:
            self._jobs[job.job_id] = job
            if job.lease_request is not None:
                self._grants.setdefault((job.tenant, job.lease_request), []).append(job)
        self.adopt_queues(loaded)

    def begin(self) -> None:
        """The next command is decided."""
        self.news = News()
        self._points = 0

    def done(self, reply: StoreReply | None, work: int = 0) -> Done:
        """What came of the command, for which the engine has looked at `work` rows besides."""
        return Done(reply, self.news, 1 + (self._points + work) // POINTS_PER_UNIT)

    # --- what was loaded ---

    def adopt_queues(self, loaded: Loaded) -> None:
        """Modes and kinds of queues, and usage of their tenants."""
        for queue, mode in loaded.modes.items():
            self._modes[queue] = mode
        self._tallies.adopt(loaded)

    def adopt_waiting(self, rows: Iterable[JobRow]) -> None:
        """Jobs that may be leased, in order."""
        for row in rows:
            job = self._adopted(row)
            self._places.setdefault(job.key, []).append((-job.priority, job.number, job))

    def adopt_due(self, rows: Iterable[JobRow]) -> None:
        """Jobs of which a lease or a delay is over."""
        self._due = [self._adopted(row) for row in rows]

    def _adopted(self, row: JobRow) -> JobRow:
        job = self._jobs.setdefault(row.job_id, row)
        if not job.spec:
            job.spec = row.spec
        return job

    def queues_of(self) -> dict[str, tuple[str, str]]:
        """The queue and needs of each job that was loaded."""
        return {job_id: (job.queue, job.needs) for job_id, job in self._jobs.items()}

    # --- readers ---

    def job(self, tenant: str, job_id: str) -> JobRow:
        """A job. Raises `NotFound`, `CorruptLog`."""
        self._points += READ_POINTS
        job = self._jobs.get(job_id)
        if job_id in self._damaged:
            raise CorruptLog
        if job is None or job.tenant != tenant:
            raise NotFound
        return job

    def held(self, tenant: str, lease: LeaseRef) -> JobRow:
        """The job whose last attempt `lease` proves, running or ended.

        Raises `NotFound`, `StaleToken`, `CorruptLog`.
        """
        job = self.job(tenant, lease.job_id)
        if job.attempt != lease.attempt or job.token_hash != self._hash(lease.task_token):
            raise StaleToken
        return job

    def _hash(self, token: bytes) -> bytes:
        """The hash of a token, which comes twice where events and their completion travel together."""
        found = self._hashes.get(token)
        if found is None:
            found = self._hashes[token] = token_hash(token)
        return found

    def spec(self, job: JobRow) -> JobSpec:
        """The job's spec. Raises `Undecodable`."""
        assert job.spec, "the keys of the batch asked for it"
        try:
            return decode_spec(job.spec)
        except UNDECODABLE as error:
            raise Undecodable(job.job_id) from error

    def granted(self, tenant: str, request_id: RequestId) -> list[JobRow]:
        """The jobs that were last leased by this request, in the order of submission. Raises `CorruptLog`."""
        self._require_readable(tenant, request_id)
        found = self._grants.get((tenant, request_id), ())
        still = [job for job in found if job.lease_request == request_id and job.number not in self._removed]
        return sorted(still, key=lambda job: job.number)

    def due(self) -> list[JobRow]:
        """Jobs of which a lease or a delay was over when the batch began."""
        return self._due

    def record(self, tenant: str, request_id: RequestId) -> Record | None:
        """The idempotency record of a request. Raises `CorruptLog`."""
        self._require_readable(tenant, request_id)
        return self._records.get((tenant, request_id))

    def _require_readable(self, tenant: str, request_id: RequestId) -> None:
        self._points += READ_POINTS
        if (tenant, request_id) in self._unreadable:
            raise CorruptLog

    def mode(self, tenant: str, queue: str) -> QueueMode | None:
        """The mode of a queue; None: it has no jobs, and is open."""
        self._points += READ_POINTS
        return self._modes.get((tenant, queue, ""))

    def kinds(self, tenant: str, queue: str) -> dict[str, int]:
        """Every need of the jobs in a queue that have not ended, and how many have it."""
        found = self._tallies.kinds(tenant, queue)
        self._points += len(found) * READ_POINTS
        return found

    def kinds_of(self, tenant: str) -> int:
        """How many kinds of jobs a tenant has in all queues."""
        return self._tallies.kinds_of(tenant)

    def usage(self, tenant: str) -> Usage:
        """What a tenant takes."""
        self._points += READ_POINTS
        return self._tallies.usage(tenant)

    def boxes(self, tenant: str, queue: str) -> dict[str, SecretRow]:
        """The sealed secrets of a queue, by name."""
        found = self._boxes.get((tenant, queue))
        if found is None:
            found = self._boxes[tenant, queue] = self._look_up_boxes(tenant, queue)
        self._points += len(found) * READ_POINTS
        return found

    def ready(self, tenant: str, queue: str) -> set[QueueKey]:
        """The kinds of a queue's jobs of which any may be leased."""
        kinds = (QueueKey(tenant, queue, needs) for needs in ("", *self.kinds(tenant, queue)))
        return {key for key in kinds if self._first(key) is not None}

    def take_waiting(self, tenant: str, queue: str, facts: frozenset[str], most: int) -> list[JobRow]:
        """The first jobs of a queue that an agent with these tags may run, for it to lease them all."""
        kinds = (QueueKey(tenant, queue, needs) for needs in self.kinds(tenant, queue) if meets(facts, needs))
        heads = [(first, key) for key in (QueueKey(tenant, queue), *kinds) if (first := self._first(key)) is not None]
        heapify(heads)
        taken: list[JobRow] = []
        while heads and len(taken) < most:
            (_, _, job), key = heappop(heads)
            taken.append(job)
            heappop(self._places[key])
            if (following := self._first(key)) is not None:
                heappush(heads, (following, key))
        return taken

    def _first(self, key: QueueKey) -> _Place | None:
        places = self._places.get(key)
        while places:
            if not places[0][2].gate:
                return places[0]
            heappop(places)
        return None

    def require_sound(self, minted: Iterable[MintedJob]) -> None:
        """Raises `CorruptLog` where new jobs of these ids cannot be stored for damage."""
        if self._damaged and any(job.job_id in self._damaged for job in minted):
            raise CorruptLog

    # --- writers ---

    def add_job(self, job: JobRow, facts: Sequence[bytes]) -> None:
        """A job comes, found by these facts of its metadata."""
        job.number = self._next_number
        self._next_number += 1
        self._jobs[job.job_id] = job
        self._changes.added.append(job)
        if facts:
            self._changes.facts += [(job.tenant, fact, job.number) for fact in facts]
        self.take(job.tenant, len(job.spec))
        self._points += WRITE_POINTS * (1 + len(facts))
        self._modes.setdefault((job.tenant, job.queue, ""), QueueMode.OPEN)
        job.gate = 1
        self.moved(job, ENDED)

    def change(self, job: JobRow) -> Standing:
        """The job is about to be changed; its standing until now, for `moved`, where its state or delay changes."""
        if job.number < self._first_number and job.number not in self._changed:
            self._changed[job.number] = (copy(job), job)
        self._points += WRITE_POINTS
        return standing_of(job)

    def moved(self, job: JobRow, before: Standing) -> None:
        """The job's state or delay has changed: its gate and the counters follow."""
        gate = gate_of(job)
        if not gate and job.gate:
            self._may_be_leased(job)
        job.gate = gate
        after = standing_of(job)
        if after is not before:
            self._tallies.moved(job, before, after)

    def _may_be_leased(self, job: JobRow) -> None:
        key: tuple[str, str, str] = (job.tenant, job.queue, job.needs)  # equal to its QueueKey, and made in no time
        if key not in self.news.ready:
            self.news.ready.add(QueueKey(*key))
        self._place(key, job)

    def put_back(self, jobs: Iterable[JobRow]) -> None:
        """Jobs that were taken are not leased after all."""
        for job in jobs:
            self._place((job.tenant, job.queue, job.needs), job)

    def _place(self, key: tuple[str, str, str], job: JobRow) -> None:
        places = self._places.get(key)
        if places is None:
            places = self._places[key] = []
        heappush(places, (-job.priority, job.number, job))

    def append(self, job: JobRow, count: int, raw: bytes, latest_ms: int) -> None:
        """Events of the job's attempt go to the end of its log."""
        first = job.last_sequence + 1
        job.last_sequence += count
        self._changes.segments.append(
            Segment(
                number=job.number,
                first_sequence=first,
                count=count,
                attempt=job.attempt,
                last_timestamp_ms=latest_ms,
                events=raw,
            )
        )
        self._tallies.add_bytes(job.tenant, len(raw))
        self._points += WRITE_POINTS
        run = EventSegment(first_sequence=first, count=count, attempt=job.attempt, events=raw)
        self.news.appended.append(Appended(job.watch_key, run))

    def write(self, job: JobRow, bodies: list[BrokerBody]) -> None:
        """Events of the broker's own go to the end of the job's log."""
        self.append(job, len(bodies), encode_bodies(bodies), self.now_ms)

    def lease(self, job: JobRow, request_id: RequestId) -> None:
        """The job was last leased by this request."""
        job.lease_request = request_id
        self._grants.setdefault((job.tenant, request_id), []).append(job)

    def note(self, record: Record) -> None:
        """A request is answered."""
        self._records[record.tenant, record.request_id] = record
        self._changes.records.append(record)
        self.take(record.tenant, RECORD_BYTES)
        self._points += WRITE_POINTS

    def set_mode(self, tenant: str, queue: str, mode: QueueMode) -> None:
        """A queue has another mode."""
        key = QueueKey(tenant, queue)
        self._modes[key] = self._changes.modes[key] = mode
        self._points += WRITE_POINTS

    def set_secret(self, secret: SecretRow) -> None:
        """A sealed secret is kept, in the place of one of that name."""
        self.boxes(secret.tenant, secret.queue)[secret.name] = secret
        self._forget_secret_changes(secret.tenant, secret.queue, secret.name)
        self._changes.secrets.append(secret)
        self._points += WRITE_POINTS

    def remove_secret(self, secret: SecretRow) -> None:
        """A sealed secret is forgotten."""
        del self.boxes(secret.tenant, secret.queue)[secret.name]
        self._forget_secret_changes(secret.tenant, secret.queue, secret.name)
        self._changes.secrets_removed.append((secret.tenant, secret.queue, secret.name))
        self._points += WRITE_POINTS

    def _forget_secret_changes(self, *name: str) -> None:
        """Only the last of several changes of a secret is saved."""
        changes = self._changes
        changes.secrets = [row for row in changes.secrets if (row.tenant, row.queue, row.name) != name]
        changes.secrets_removed = [removed for removed in changes.secrets_removed if removed != name]

    def remove_job(self, job: JobRow) -> bool:
        """A job that has ended is gone; False: it was already."""
        if job.number in self._removed:
            return False
        self._removed.add(job.number)
        self._changed.pop(job.number, None)
        self._jobs.pop(job.job_id, None)
        self._changes.removed.append(job)
        self.take(job.tenant, -len(job.spec))
        self._points += 2 * WRITE_POINTS
        return True

    def take(self, tenant: str, size_bytes: int) -> None:
        """A tenant takes so many bytes more, or less."""
        self._tallies.add_bytes(tenant, size_bytes)

    def work(self, points: int) -> None:
        """Work was done that is not seen here."""
        self._points += points

    def changes(self) -> Changes:
        """All that the batch changes."""
        changes = self._changes
        changes.changed = list(self._changed.values())
        assert all(after.gate == gate_of(after) for _, after in changes.changed), "what moves a job calls `moved`"
        self._tallies.save(changes)
        return changes
