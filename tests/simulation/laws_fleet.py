"""The laws of brokers that share a database, and of those that wait at them: nothing is done twice, or left lying.

A broker stamps an event as it begins a batch, and the database shows it later: so what these laws compare is when each
transaction became visible.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from airunner.protocol.errors import Busy, Quota
from airunner.protocol.replies import QueueMode
from tests.simulation.evidence import Evidence, Found
from tests.simulation.history import Acknowledged, Asked, Committed, Invoked, Killed, Leased, RefusedReply, Told
from tests.simulation.tags import tags_of

IDLE_BEATS_MS: Final = 2_500  # two beats, in the second of which a lost hint is noticed, and a lease
LOOKS_MS: Final = 1_500  # between two looks for jobs that the store shows late, with what a look takes
ANSWERED_MS: Final = 1_000  # in which a request that has waited to its end is answered


def attempts_rise_in_the_database(evidence: Evidence) -> Found:
    """Each lease that becomes visible is of the attempt that follows, whichever broker grants it."""
    last: dict[str, int] = {}
    for commit in evidence.commits:
        for job_id, attempt, _ in commit.leased:
            if attempt != last.get(job_id, 0) + 1:
                yield job_id, f"attempt {attempt} was leased at {commit.at_ms} after {last.get(job_id, 0)}"
            last[job_id] = attempt


def the_dead_commit_nothing(evidence: Evidence) -> Found:
    """Once a broker's jobs were adopted nothing of it becomes visible, until it has opened the database again."""
    dead: dict[str, int] = {}
    for commit in evidence.commits:
        if commit.opens:
            dead.pop(commit.broker, None)
        if commit.broker in dead:
            yield None, f"{commit.broker} was adopted at {dead[commit.broker]} and has committed at {commit.at_ms}"
        dead.update(dict.fromkeys(commit.adopted, commit.at_ms))


def a_request_leases_once(evidence: Evidence) -> Found:
    """A DequeueJob that is repeated, at another broker too, is granted nothing new while a lease of it lives."""
    granted: dict[bytes, Committed] = {}
    alive: defaultdict[bytes, set[tuple[str, int]]] = defaultdict(set)
    for commit in evidence.commits:
        for leases in alive.values():
            leases.difference_update(commit.ended)
        for job_id, _, request_id in commit.leased:
            before = granted.setdefault(request_id, commit)
            if before is not commit and alive[request_id]:
                first = sorted(alive[request_id])
                yield job_id, f"was leased at {commit.at_ms} by a request that had {first} since {before.at_ms}"
            if not alive[request_id]:
                granted[request_id] = commit
        for job_id, attempt, request_id in commit.leased:
            alive[request_id].add((job_id, attempt))


def a_refusal_means_that_nothing_was_done(evidence: Evidence) -> Found:
    """Once a request's answer is stored, it is not refused; that it is to come again is no refusal.

    A broker that has refused a request before, and was stopped as it spoke, says so late.
    """
    done = {request_id: commit for commit in evidence.commits for request_id in commit.answered}
    for refused in evidence.history.of(RefusedReply):
        by = done.get(refused.request_id)
        if by is None or refused.code in (Busy.code, Quota.code):
            continue
        if by.at_ms < (refused.at_ms if refused.broker == by.broker else refused.asked_at_ms):
            yield None, f"{refused.kind} of {refused.machine} was done at {by.at_ms}, and refused with {refused.code}"


def a_pause_holds_at_every_broker(evidence: Evidence) -> Found:
    """Once a pause is visible no lease from the queue becomes visible, until another mode of the queue has."""
    paused_ms: dict[str, int] = {}
    for commit in evidence.commits:
        for queue, mode in commit.modes:
            paused_ms.pop(queue, None)
            if mode == QueueMode.PAUSED:
                paused_ms[queue] = commit.at_ms
        changed = {queue for queue, _ in commit.modes}  # in a batch that leases from it before or after
        for job_id, _, _ in commit.leased:
            queue = evidence.cases[job_id].job.spec.queue if job_id in evidence.cases else None
            if queue in paused_ms and queue not in changed:
                yield job_id, f"was leased at {commit.at_ms} from a queue paused since {paused_ms[queue]}"


def no_job_waits_beside_a_parked_agent(evidence: Evidence) -> Found:
    """When all is well, a job that may be leased is, within two idle beats, while a request for it waits anywhere.

    Where the store shows late which jobs wait, that much later; it is looked for until then, once a second at least.
    """
    idle_ms = IDLE_BEATS_MS + (evidence.late_ms + LOOKS_MS if evidence.late_ms else 0)
    calm_ms = evidence.calm_from_ms
    if calm_ms is None or not evidence.commits:
        return
    waits, held = list(_waits(evidence)), list(_held(evidence))
    for parked in _parked(evidence):
        for job_id, since_ms, until_ms in waits:
            spec = evidence.cases[job_id].job.spec
            from_ms = max(parked.since_ms, since_ms, calm_ms)
            to_ms = min(parked.until_ms, until_ms, parked.since_ms + parked.wait_ms)
            if to_ms - from_ms <= idle_ms or spec.queue not in parked.queues:
                continue
            if any(one.queue == spec.queue and one.since_ms < to_ms and one.until_ms > from_ms for one in held):
                continue
            if spec.require.items() <= tags_of(parked.machine).items():
                yield (
                    job_id,
                    f"waited from {from_ms} to {to_ms} beside a request of {parked.machine} at {parked.broker}",
                )


def every_parked_request_is_answered(evidence: Evidence) -> Found:
    """When all is well, each DequeueJob is answered by its broker when its wait is over at the latest."""
    calm_ms = evidence.calm_from_ms
    for parked in _parked(evidence) if calm_ms is not None else ():
        due_ms = parked.since_ms + parked.wait_ms + ANSWERED_MS
        if parked.since_ms >= calm_ms and parked.until_ms > due_ms and evidence.end_ms > due_ms:
            yield None, f"a request of {parked.machine} at {parked.broker} waits since {parked.since_ms}"


class _Held(NamedTuple):
    """From when until when a queue may have been paused."""

    queue: str | None
    since_ms: int
    until_ms: int


def _held(evidence: Evidence) -> Iterator[_Held]:
    asked = [record for record in evidence.history.of(Invoked) if record.kind == "queue"]
    acknowledged = {record.request_id: record.at_ms for record in evidence.history.of(Acknowledged)}
    opened = [(one.queue, acknowledged.get(one.request_id)) for one in asked if one.mode == QueueMode.OPEN]
    for pause in (one for one in asked if one.mode == QueueMode.PAUSED):
        ends_ms = [
            at_ms for queue, at_ms in opened if queue == pause.queue and at_ms is not None and at_ms > pause.at_ms
        ]
        yield _Held(pause.queue, pause.at_ms, min(ends_ms, default=evidence.end_ms))


class _Parked(NamedTuple):
    machine: str
    broker: str
    queues: tuple[str, ...]
    wait_ms: int
    since_ms: int
    until_ms: int


def _parked(evidence: Evidence) -> Iterator[_Parked]:
    """Each DequeueJob, and from when until when it waited at its broker."""
    asked: dict[tuple[str, bytes], Asked] = {}
    for record in evidence.history:
        if isinstance(record, Asked):
            asked.setdefault((record.broker, record.request_id), record)
        elif isinstance(record, Killed):
            asked = {key: one for key, one in asked.items() if key[0] != record.machine}
        elif isinstance(record, Leased | RefusedReply):
            first = asked.pop((record.broker, record.request_id), None)
            if first is not None:
                yield _waited(first, record)
    for first in asked.values():
        yield _waited(first, None, evidence.end_ms)


def _waited(asked: Asked, answered: Told | None, end_ms: int = 0) -> _Parked:
    until_ms = end_ms if answered is None else answered.at_ms
    return _Parked(asked.machine, asked.broker, asked.queues, asked.wait_ms, asked.at_ms, until_ms)


def _waits(evidence: Evidence) -> Iterator[tuple[str, int, int]]:
    """Each job that could be leased, from when until when."""
    since: dict[str, int] = {}
    for commit in evidence.commits:
        for job_id in commit.unready:
            if job_id in since and job_id in evidence.cases:
                yield job_id, since[job_id], commit.at_ms
            since.pop(job_id, None)
        for job_id in commit.ready:
            since.setdefault(job_id, commit.at_ms)
    yield from ((job_id, at_ms, evidence.end_ms) for job_id, at_ms in since.items() if job_id in evidence.cases)
