"""Leases in SQL: who runs what, and until when. How they end is in `endings`.

The fence (attempt, token and state) stands in each statement that changes a lease, so that no other check can
be forgotten.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from airunner.broker.store.contract import Appended, Ask, LeasesCounted, Outcome, QueueKey
from airunner.broker.store.needs import facts_of, meets
from airunner.broker.store.room import Room
from airunner.broker.store.sqlite.damage import Aside, about
from airunner.broker.store.sqlite.log import Log
from airunner.broker.store.sqlite.queues import heads
from airunner.broker.store.sqlite.rows import Database, fetch_all, fetch_one
from airunner.broker.store.sqlite.secrets import Secrets
from airunner.protocol.errors import Conflict, NoSpace, StaleToken
from airunner.protocol.events import JobLeased
from airunner.protocol.job import JobState, decode_spec
from airunner.protocol.messages import (
    DequeueJob,
    JobLease,
    JobsLeased,
    JobsUpdated,
    LeaseRef,
    LeaseVerdict,
    UpdateJob,
    Verdict,
)
from airunner.protocol.names import JobId, WatchKey, task_token, token_hash
from airunner.protocol.queues import QueueMode
from airunner.protocol.states import Change, next_state

_PLACES: Final = (
    "SELECT priority, number FROM job WHERE tenant = ? AND queue = ? AND needs = ? AND state = 'SCHEDULED'"
    " AND due_ms IS NULL ORDER BY priority DESC, number LIMIT ?"
)
_WAITING: Final = "SELECT number, job_id, attempt, spec, watch_key, last_sequence FROM job WHERE number = ?"
_PAUSED: Final = f"SELECT 1 FROM queue WHERE tenant = ? AND name = ? AND mode = '{QueueMode.PAUSED}'"
_LEASE: Final = (
    "UPDATE job SET state = ?, attempt = ?, next_index = 0, agent = ?, token_hash = ?, lease_request = ?,"
    " visibility_ms = ?, deadline_ms = ?, started_ms = coalesce(started_ms, ?), settled = NULL,"
    " last_sequence = last_sequence + 1"
    " WHERE number = ? AND state = 'SCHEDULED' AND attempt = ?"
)
_RENEW: Final = (
    "UPDATE job SET deadline_ms = max(deadline_ms, ?), visibility_ms = ?"
    " WHERE job_id = ? AND tenant = ? AND state = 'RUNNING' AND attempt = ? AND token_hash = ?"
    " RETURNING iif(cancel_requested_ms IS NULL, ?, ?)"
)


_RESUMED: Final = "UPDATE job SET deadline_ms = ? + visibility_ms"
_RETRIED: Final = "UPDATE job SET due_ms = min(due_ms, ? + pause_ms)"
_PAUSES: Final = "state = 'SCHEDULED' AND due_ms IS NOT NULL AND pause_ms IS NOT NULL"


class _Place(NamedTuple):
    priority: int
    number: int


class _Waiting(NamedTuple):
    number: int
    job_id: JobId
    attempt: int
    spec: bytes
    watch_key: WatchKey
    last_sequence: int


class _Held(NamedTuple):
    job_id: JobId
    attempt: int
    spec: bytes
    visibility_ms: int
    token_hash: bytes | None
    state: JobState


class _Count(NamedTuple):
    agent: str
    leases: int


class Leases:
    """Grants and renews leases over `connection`, within the caller's transaction."""

    def __init__(self, connection: Database, log: Log, secrets: Secrets, aside: Aside) -> None:
        self._connection = connection
        self._aside = aside
        self._log = log
        self._secrets = secrets

    def dequeue(self, ask: Ask, request: DequeueJob, now_ms: int) -> Outcome:
        """Grant what this request holds already, or else what waits.

        Raises `Conflict`: what it holds was granted to another seed; `StaleToken`: what it was granted has ended
        since, so this is a late copy that nobody waits for; `NoSpace`. Then nothing is changed.
        """
        held = self._held(ask, request, now_ms)
        if held:
            return Outcome(reply=JobsLeased(leases=held))
        if ask.room < Room.RUNNING:
            raise NoSpace
        leases: list[JobLease] = []
        appended: list[Appended] = []
        exhausted: set[QueueKey] = set()
        facts = facts_of(request.tags)
        for queue in dict.fromkeys(request.queues):
            room = request.slots - len(leases)
            if not room:
                break
            waiting = self._waiting(ask.tenant, queue, facts, room)
            if len(waiting) < room:
                exhausted.add(QueueKey(ask.tenant, queue))
            for job in waiting:
                with about(job.number):
                    lease = self._lease(
                        ask.tenant, request, job.job_id, job.attempt + 1, job.spec, request.visibility_ms
                    )
                    self._grant(ask, request, job.number, lease, now_ms)
                event = JobLeased(timestamp_ms=now_ms, agent=request.agent)
                appended.append(
                    self._log.append(ask.tenant, job.number, job.watch_key, lease.attempt, job.last_sequence, [event])
                )
                leases.append(lease)
        return Outcome(reply=JobsLeased(leases=tuple(leases)), appended=tuple(appended), exhausted=frozenset(exhausted))

    def _waiting(self, tenant: str, queue: str, facts: frozenset[str], room: int) -> list[_Waiting]:
        """The first jobs of a queue that an agent with these tags may run; none while it is paused."""
        if self._connection.execute(_PAUSED, (tenant, queue)).get is not None:
            return []
        able = [head for head in heads(self._connection, tenant, queue) if meets(facts, head.needs)]
        able.sort(key=lambda head: (-head.priority, head.number))
        places = [
            place
            for needs in ("", *(head.needs for head in able[:room]))  # the others' first comes behind all of theirs
            for place in fetch_all(self._connection, _Place, _PLACES, (tenant, queue, needs, room + len(self._aside)))
            if place.number not in self._aside
        ]
        places.sort(key=lambda place: (-place.priority, place.number))
        found = [self._waiting_at(place.number) for place in places[:room]]
        return [job for job in found if job is not None]

    def _waiting_at(self, number: int) -> _Waiting | None:
        with about(number):
            return fetch_one(self._connection, _Waiting, _WAITING, (number,))

    def renew(self, tenant: str, request: UpdateJob, now_ms: int) -> JobsUpdated:
        """One verdict for each lease."""
        verdicts: list[LeaseVerdict] = []
        for ref in request.leases:
            found: object = None
            if ref.job_id not in self._aside:
                with about(ref.job_id):
                    found = self._renewed(tenant, ref, request.visibility_ms, now_ms)
            verdict = Verdict.LOST if found is None else Verdict(str(found))
            verdicts.append(LeaseVerdict(job_id=JobId(ref.job_id), attempt=ref.attempt, verdict=verdict))
        return JobsUpdated(leases=tuple(verdicts))

    def _renewed(self, tenant: str, ref: LeaseRef, visibility_ms: int, now_ms: int) -> object:
        """The verdict; None where the lease is another's."""
        return self._connection.execute(
            _RENEW,
            (
                now_ms + visibility_ms,
                visibility_ms,
                ref.job_id,
                tenant,
                ref.attempt,
                token_hash(ref.task_token),
                Verdict.KEPT,
                Verdict.CANCEL,
            ),
        ).get

    def resume(self, now_ms: int) -> Outcome:
        """Give every live lease one full visibility period from now, and every retry at most its pause.

        No agent counts on more, and what was there is an instant of another broker's clock: if that one was
        ahead of ours by hours, a lost agent's lease would last as long, and a retry wait so.
        """
        if not self._aside.careful:
            self._connection.execute(f"{_RESUMED} WHERE state = 'RUNNING'", (now_ms,))
            self._connection.execute(f"{_RETRIED} WHERE {_PAUSES}", (now_ms,))
            return Outcome()
        for change, where in ((_RESUMED, "state = 'RUNNING'"), (_RETRIED, _PAUSES)):
            found = self._connection.execute(f"SELECT number FROM job WHERE {where} AND {self._aside.others}")
            for number in [number for (number,) in found if isinstance(number, int)]:
                with about(number):
                    self._connection.execute(f"{change} WHERE number = ?", (now_ms, number))
        return Outcome()

    def counts(self, tenant: str) -> LeasesCounted:
        """How many jobs run on each agent."""
        rows = fetch_all(
            self._connection,
            _Count,
            "SELECT agent, count(*) FROM job WHERE tenant = ? AND state = 'RUNNING' GROUP BY agent",
            (tenant,),
        )
        return LeasesCounted({row.agent: row.leases for row in rows})

    def _held(self, ask: Ask, request: DequeueJob, now_ms: int) -> tuple[JobLease, ...]:
        """The leases that this very request was granted, good for a full period from its repeat.

        In the order of submission, which is that of the first grant only within one queue.
        """
        held = fetch_all(
            self._connection,
            _Held,
            "SELECT job_id, attempt, spec, visibility_ms, token_hash, state FROM job INDEXED BY job_granted"
            " WHERE tenant = ? AND lease_request = ? ORDER BY number",
            (ask.tenant, ask.request_id),
        )
        if held and all(one.state is not JobState.RUNNING for one in held):
            raise StaleToken
        held = [one for one in held if one.state is JobState.RUNNING]
        leases = tuple(
            self._lease(ask.tenant, request, one.job_id, one.attempt, one.spec, one.visibility_ms) for one in held
        )
        if any(token_hash(lease.task_token) != one.token_hash for lease, one in zip(leases, held, strict=True)):
            raise Conflict
        if leases:
            self._connection.execute(
                "UPDATE job INDEXED BY job_granted SET deadline_ms = max(deadline_ms, ? + visibility_ms)"
                " WHERE tenant = ? AND lease_request = ? AND state = 'RUNNING'",
                (now_ms, ask.tenant, ask.request_id),
            )
        return leases

    def _grant(self, ask: Ask, request: DequeueJob, number: int, lease: JobLease, now_ms: int) -> None:
        self._connection.execute(
            _LEASE,
            (
                next_state(JobState.SCHEDULED, Change.LEASE),
                lease.attempt,
                request.agent,
                token_hash(lease.task_token),
                ask.request_id,
                request.visibility_ms,
                now_ms + request.visibility_ms,
                now_ms,
                number,
                lease.attempt - 1,
            ),
        )
        assert self._connection.changes() == 1, "a waiting job is there, in the same transaction"

    def _lease(
        self, tenant: str, request: DequeueJob, job_id: JobId, attempt: int, raw: bytes, visibility_ms: int
    ) -> JobLease:
        """The grant, with the token that this request's seed gives; the same whenever it is asked again."""
        spec = decode_spec(raw)
        names = [name for name in spec.secret_names if name not in spec.environment]
        return JobLease(
            job_id=job_id,
            attempt=attempt,
            task_token=task_token(request.token_seed, job_id, attempt),
            visibility_ms=visibility_ms,
            spec=spec,
            sealed=self._secrets.of(tenant, spec.queue, names) if names else {},
        )
