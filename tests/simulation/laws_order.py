"""The laws of when and in which order: delays, retries, priority, paused queues.

Whatever the clocks leave open is decided for the accused: a law speaks only where no reading of them is innocent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from airunner.protocol.events import Event, JobFinished, JobLeased, JobScheduled, JobUnblocked
from airunner.protocol.job import JobState, Reason
from airunner.protocol.replies import QueueMode
from tests.simulation.evidence import Case, Evidence, Found, Span
from tests.simulation.history import Acknowledged, Invoked
from tests.simulation.tags import tags_of

LOCKED_MS: Final = 1_000  # that a job may be locked, or an event be stamped before it is visible, when all is well


def delayed_jobs_are_never_early(evidence: Evidence) -> Found:
    """A job is not leased before its `not_before_ms`, nor before the pause of a retry is over, by the broker's clock.

    Once a broker's clock has shown that instant the job is due, and stays so though a later broker's clock may be
    behind; only a lease before any clock has shown it is early. A retry is due after its pause, whatever clocks show,
    unless one took over from another that it disagrees with: then the pause may be cut short.
    """
    for job_id, case in evidence.cases.items():
        asked_ms = case.job.spec.not_before_ms
        for wait in case.folded.waits:
            body = wait.begin.body
            if not isinstance(body, JobScheduled):
                continue
            if not body.retry and asked_ms is not None and body.timestamp_ms < asked_ms != body.not_before_ms:
                yield job_id, f"was asked to wait until {asked_ms} and waited until {body.not_before_ms}"
            due_ms, leased = body.not_before_ms, wait.end
            if due_ms is None or leased is None or isinstance(leased.body, JobFinished):
                continue
            span = evidence.leased(job_id, leased)
            shown_ms = None if span is None else evidence.clocks.latest_shown_ms(span.latest_ms)
            begun = evidence.span(wait.begin) if body.retry else None
            if (
                begun is not None
                and span is not None
                and (
                    span.latest_ms - begun.earliest_ms >= due_ms - body.timestamp_ms
                    or evidence.clocks.jumped(begun.earliest_ms, span.latest_ms)
                )
            ):
                continue
            if leased.timestamp_ms < due_ms and shown_ms is not None and shown_ms < due_ms:
                yield job_id, f"was due at {due_ms} and leased at {leased.timestamp_ms}"


def only_jobs_that_no_agent_began_expire(evidence: Evidence) -> Found:
    """A job fails with `expired` if no agent has begun it by the end of its `expires`, and not otherwise.

    It is judged by the broker's clock, unless a broker with another clock has taken over meanwhile.
    """
    for job_id, case in evidence.cases.items():
        result, expires = case.job.result, case.job.spec.expires
        expired = result is not None and result.reason is Reason.EXPIRED
        leased = [event for event in case.events if isinstance(event.body, JobLeased)]
        if expired and (expires is None or leased):
            yield job_id, f"expired after {len(leased)} leases, and its expiry is {expires}"
        if expires is None or not (expired or leased):
            continue
        scheduled, judged = case.events[0], leased[0] if leased else case.events[-1]
        since, until = evidence.span(scheduled), evidence.span(judged)
        if since is None or until is None or evidence.clocks.jumped(since.earliest_ms, until.latest_ms):
            continue
        due_ms = expires.deadline_ms(scheduled.timestamp_ms)
        if judged.timestamp_ms < due_ms if expired else judged.timestamp_ms > due_ms:
            yield job_id, f"was to expire at {due_ms}, and is {judged.kind} at {judged.timestamp_ms}"


def retries_keep_to_their_policy(evidence: Evidence) -> Found:
    """A failed command is run again no more often than its policy says, and after a pause as long as it says."""
    for job_id, case in evidence.cases.items():
        policy = case.job.spec.retry
        for wait in case.folded.waits:
            body = wait.begin.body
            if not isinstance(body, JobScheduled) or not body.retry:
                continue
            if policy is None or body.retry > policy.limit:
                yield job_id, f"was run again {body.retry} times, and its policy is {policy}"
                continue
            most_ms = min(policy.backoff_max_ms, policy.backoff_ms * 2 ** (body.retry - 1))
            pause_ms = (body.not_before_ms or body.timestamp_ms) - body.timestamp_ms
            if not most_ms // 2 <= pause_ms <= most_ms:
                yield (
                    job_id,
                    f"retry {body.retry} waits for {pause_ms} ms, and half of {most_ms} to all is due",
                )
        result = case.job.result
        if policy is None or policy.on is not None or result is None or case.folded.cancel_requested_ms is not None:
            continue
        failed = case.job.state is JobState.FAILED and result.reason not in (Reason.AGENT_LOST, Reason.EXPIRED)
        if failed and case.folded.retries < policy.limit:
            yield job_id, f"is FAILED after {case.folded.retries} retries of {policy.limit}"


def priority_and_then_submission_order_are_kept(evidence: Evidence) -> Found:
    """No job is leased while a better one of its queue certainly waits, ready, through that whole instant.

    Better is a higher priority, or the same and submitted before, among those that need the same of their agent. A
    wait with a delay is not judged. Brokers of a fleet skip jobs that others have locked, and stamp an event before it
    is visible: there it is judged when all is well, and between waits that are long enough; longer where the store
    shows late which jobs wait.
    """
    margin_ms = LOCKED_MS + evidence.late_ms if evidence.fleet else 0
    calm_ms = (evidence.calm_from_ms or evidence.end_ms) if evidence.fleet else 0
    queues: dict[tuple[str, str, str], list[Case]] = defaultdict(list)
    for case in evidence.cases.values():
        queues[case.tenant, case.job.spec.queue, repr(case.job.spec.require)].append(case)
    order = _Order(evidence)
    for cases in queues.values():
        waits = [(case, since, until) for case in cases for since, until in _waits(evidence, case)]
        leases = [(case, leased) for case in cases for leased in _leased(evidence, case)]
        for worse, leased in leases:
            for better, since, until in waits:
                passed_over = since.later(margin_ms).surely_before(leased) and (
                    until is None or leased.later(margin_ms).surely_before(until)
                )
                passed_over = passed_over and since.earliest_ms >= calm_ms
                if passed_over and better is not worse and order.surely_before(better, worse):
                    yield worse.job.id, f"was leased at {leased.earliest_ms} while {better.job.id} waited since {since}"


def agents_have_what_their_jobs_require(evidence: Evidence) -> Found:
    """No job is leased to an agent without the tags that it requires."""
    for job_id, case in evidence.cases.items():
        for lease in case.folded.leases:
            if isinstance(lease.begin.body, JobLeased):
                has = tags_of(lease.begin.body.agent)
                if not case.job.spec.require.items() <= has.items():
                    yield job_id, f"requires {case.job.spec.require} and was leased to one with {has}"


def a_paused_queue_leases_nothing(evidence: Evidence) -> Found:
    """Between a pause that was acknowledged and the next request to end it, no job of the queue is leased.

    Where an earlier request to open the queue may still be on its way, nobody can tell.
    """
    acknowledged = {record.request_id: record.at_ms for record in evidence.history.of(Acknowledged)}
    requests = [record for record in evidence.history.of(Invoked) if record.kind == "queue"]
    for pause in requests:
        since_ms = acknowledged.get(pause.request_id)
        if pause.mode != QueueMode.PAUSED or since_ms is None:
            continue
        others = [
            other.at_ms
            for other in requests
            if (other.tenant, other.queue) == (pause.tenant, pause.queue) and other.mode != QueueMode.PAUSED
        ]
        if any(at_ms <= since_ms for at_ms in others):
            continue
        paused = Span(since_ms, min(others, default=evidence.end_ms))
        for job_id, case in evidence.cases.items():
            if (case.tenant, case.job.spec.queue) == (pause.tenant, pause.queue):
                for leased in _leased(evidence, case):
                    if _within(leased, paused):
                        yield job_id, f"was leased at {leased.earliest_ms} from a queue paused since {since_ms}"


class _Order:
    """Who was submitted before whom, as far as it is certain."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._places: dict[str, tuple[bytes, int]] = {}
        for record in evidence.history.of(Acknowledged):
            for place, job_id in enumerate(record.job_ids):
                self._places[job_id] = (record.request_id, place)

    def surely_before(self, better: Case, worse: Case) -> bool:
        """Whether `better` is certainly to be leased before `worse` where both wait."""
        if better.job.spec.priority != worse.job.spec.priority:
            return better.job.spec.priority > worse.job.spec.priority
        one, other = self._places.get(better.job.id), self._places.get(worse.job.id)
        if one is not None and other is not None and one[0] == other[0]:
            return one[1] < other[1]
        submitted, later = self._submitted(better), self._submitted(worse)
        return submitted is not None and later is not None and submitted.surely_before(later)

    def _submitted(self, case: Case) -> Span | None:
        return self._evidence.span(case.events[0]) if case.events else None


def _waits(evidence: Evidence, case: Case) -> Iterator[tuple[Span, Span | None]]:
    """From when until when this job waited and could have been leased, as far as it is certain."""
    for wait in case.folded.waits:
        since = evidence.span(wait.begin)
        if since is None or _delayed(wait.begin):
            continue
        if isinstance(wait.begin.body, JobUnblocked) and case.job.spec.not_before_ms is not None:
            continue
        until = None if wait.end is None else evidence.span(wait.end)
        if wait.end is None or until is not None:
            yield since, until


def _leased(evidence: Evidence, case: Case) -> Iterator[Span]:
    """When this job was leased."""
    for lease in case.folded.leases:
        leased = evidence.leased(case.job.id, lease.begin)
        if leased is not None:
            yield leased


def _delayed(event: Event) -> bool:
    return isinstance(event.body, JobScheduled) and event.body.not_before_ms is not None


def _within(inner: Span, outer: Span) -> bool:
    start, end = Span(outer.earliest_ms, outer.earliest_ms), Span(outer.latest_ms, outer.latest_ms)
    return start.surely_before(inner) and inner.surely_before(end)
