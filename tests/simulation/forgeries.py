"""Recorded good histories, each forged in one way: what the oracle's laws are to find.

A forgery is given the evidence of a good history and yields what it can make of it: nothing where the history has none
of what it forges, and several where the clocks may leave one of them open to an innocent reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from msgspec.structs import replace

from airunner.protocol.dependencies import Ending, dependency_of
from airunner.protocol.events import Event, JobExpired
from airunner.protocol.expiry import Expiry
from airunner.protocol.job import JobState, Reason
from airunner.protocol.replies import Verdict
from tests.simulation.evidence import ROUNDING_MS, Case, Evidence
from tests.simulation.forging import (
    CANCEL,
    NEVER_MS,
    Fits,
    Forgery,
    again,
    asked,
    changed,
    dropped,
    ends,
    forged,
    logged,
    other,
    shown,
    told,
    twice,
)
from tests.simulation.history import (
    Acknowledged,
    Completed,
    FinalEvents,
    Granted,
    History,
    Invoked,
    Judged,
    LeftWaiting,
    Monitored,
    Piled,
    ProcessGone,
    ProcessStarted,
    RefusedReply,
    Released,
    Stored,
)
from tests.simulation.laws_leases import promises


def gone(good: Evidence) -> Iterator[History]:
    """A job that was acknowledged is not there."""
    told = {job_id for record in good.history.of(Acknowledged) for job_id in record.job_ids}
    return (forged(good, [job, log]) for _, job, log in ends(good, lambda case: case.job.id in told))


def expired_early(why: str) -> Forgery:
    """A lease has expired just before what it was promised at last."""

    def forge(good: Evidence) -> Iterator[History]:
        for case, _, log in ends(good, lambda case: "JOB_EXPIRED" in kinds(case)):
            for lease in case.folded.leases:
                due = max(promises(good, case.job.id, lease), default=(0, ""))
                span = None if lease.end is None else good.span(lease.end)
                if span is None or lease.end is None or lease.end.kind != "JOB_EXPIRED" or due[1] != why:
                    continue
                early_ms = lease.end.timestamp_ms - (span.latest_ms - due[0]) - ROUNDING_MS - 1
                early = replace(lease.end, body=replace(lease.end.body, timestamp_ms=early_ms))
                events = tuple(early if event is lease.end else event for event in case.events)
                yield forged(good, [log], [replace(log, events=events)])

    return forge


def paused_for_good(good: Evidence) -> Iterator[History]:
    """Nobody asks for a queue to be opened."""
    opened = [record for record in good.history.of(Invoked) if record.kind == "queue" and record.mode != "paused"]
    yield forged(good, opened)


def a_lesser_job_goes_first(good: Evidence) -> Iterator[History]:
    for case in good.cases.values():
        yield from asked(lambda one, better=case: one is better, priority=100)(good)


# --- what may be forged, and how ----------------------------------------------------------------------


def successes(case: Case) -> tuple[str, ...]:
    """What a job waits for with success, as if it had to fail."""
    found = [dependency_of(text) for text in case.job.spec.after]
    return tuple(f"{each.job_id}:failure" for each in found if each.ending is Ending.SUCCESS)


def completed(case: Case) -> bool:
    return case.job.state is JobState.COMPLETED


def retried(case: Case) -> bool:
    return case.job.origin is not None


def ran_again(case: Case) -> bool:
    return case.folded.retries > 0


def waited(case: Case) -> bool:
    """Whether a first agent has begun the job, later than at once."""
    first = next((event for event in case.events if event.kind == "JOB_LEASED"), None)
    return first is not None and first.timestamp_ms > case.events[0].timestamp_ms + 1


def kinds(case: Case) -> list[str]:
    return [event.kind for event in case.events]


def has(*names: str) -> Fits:
    return lambda case: {*names} <= {*kinds(case)}


def beginning(*names: str) -> Fits:
    return lambda case: tuple(kinds(case)[: len(names)]) == names


def ended(reason: Reason) -> Fits:
    return lambda case: case.job.result is not None and case.job.result.reason is reason


def exhausted(case: Case) -> bool:
    """Whether the job has failed by itself and for good, though its policy covers every failure."""
    retry = case.job.spec.retry
    by_itself = case.job.state is JobState.FAILED and not (
        ended(Reason.AGENT_LOST)(case) or ended(Reason.EXPIRED)(case)
    )
    return by_itself and retry is not None and retry.on is None and case.job.cancel_requested_ms is None


def finishes(told: Completed) -> bool:
    return told.state is JobState.COMPLETED


def several(record: Acknowledged) -> bool:
    return len(record.job_ids) > 1


def of_kind(kind: str) -> Fits:
    return lambda record: getattr(record, "event", record).kind == kind


def place(events: list[Event], kind: str) -> int:
    return next(n for n, event in enumerate(events) if event.kind == kind)


def without(kind: str) -> Callable[[list[Event]], list[Event]]:
    return lambda events: [event for event in events if event.kind != kind]


def inserted(kind: str, behind: str) -> Callable[[list[Event]], list[Event]]:
    """A copy of the first event of a kind, behind the first of another."""

    def change(events: list[Event]) -> list[Event]:
        at = place(events, behind) + 1
        return [*events[:at], events[place(events, kind)], *events[at:]]

    return change


def reworded(kind: str, **fields: object) -> Callable[[list[Event]], list[Event]]:
    """The last event of a kind says something else."""

    def change(events: list[Event]) -> list[Event]:
        at = max(n for n, event in enumerate(events) if event.kind == kind)
        events[at] = replace(events[at], body=other(events[at].body, fields))
        return events

    return change


def of_another_attempt(events: list[Event]) -> list[Event]:
    return [replace(event, attempt=event.attempt + 1) for event in events]


def expired_at_once(events: list[Event]) -> list[Event]:
    return [events[0], replace(events[0], body=JobExpired(timestamp_ms=events[0].timestamp_ms)), *events[1:]]


TOLD: Final = Piled(at_ms=-1, machine="monitor", waiting_bytes=0, message_bytes=100)
LEFT: Final = LeftWaiting(at_ms=-1, machine="client")
REFUSED: Final = RefusedReply(at_ms=-1, machine="a", request_id=b"", asked_at_ms=0, kind="UpdateJob", code="no-space")
WHY: Final = "was leased", "was renewed", "was taken over by a new broker"
FORGERIES: Final[dict[str, dict[str, Forgery]]] = {
    "acknowledged_jobs_survive": {
        "an acknowledged job is gone": gone,
        "a repeat is told another id": again(Acknowledged, of_kind("enqueue"), job_ids=("another",)),
        "a log cannot be read": dropped(FinalEvents),
        "only one of two is acknowledged": changed(Acknowledged, several, job_ids=lambda told: told.job_ids[:1]),
        "another job stands under the id": asked(completed, command="rm"),
    },
    "nothing_runs_that_nobody_submitted": {
        "a job is there twice": twice(lambda case: not retried(case)),
        "what does not exist runs": changed(ProcessStarted, job_id="nobody's"),
        "a retry is there twice": twice(retried),
        "a retry is of something else": asked(retried, command="rm"),
    },
    "a_job_ends_once": {
        "a job finishes twice": logged(completed, lambda events: [*events, events[-1]]),
        "a job goes on": logged(completed, lambda events: [*events, events[0]]),
        "a job is shown in another state": shown(completed, state=JobState.FAILED),
        "a job ends without a word": logged(completed, lambda events: events[:-1]),
        "an agent is told another end": changed(Completed, finishes, state=JobState.FAILED),
        "another attempt finishes it": again(Completed, finishes, attempt=lambda told: told.attempt + 1),
    },
    "a_cancel_is_final": {
        "a cancelled job is leased": logged(has(CANCEL, "JOB_LEASED"), inserted("JOB_LEASED", CANCEL)),
        "a waiting job goes on": logged(beginning("JOB_SCHEDULED", CANCEL), inserted("JOB_SCHEDULED", CANCEL)),
        "a cancel is forgotten": logged(has(CANCEL), without(CANCEL)),
        "a job is cancelled by nobody": dropped(Invoked, of_kind("cancel")),
        "a cancelled job waits on": changed(Acknowledged, of_kind("cancel"), state=JobState.SCHEDULED),
        "a cancelled job is granted": again(Granted, attempt=99),
    },
    "everything_ends": {
        "a job waits for ever": shown(completed, state=JobState.SCHEDULED),
        "a due job waits for ever": shown(completed, state=JobState.SCHEDULED, due_ms=lambda job: job.submitted_ms),
        "a process is left behind": dropped(ProcessGone),
    },
    "no_client_or_monitor_waits_to_the_end": {
        "a monitor starves": lambda good: (
            forged(good, new=[replace(LEFT, job_id=job.job.id)]) for _, job, _ in ends(good, completed)
        ),
        "a client is never answered": told(LEFT),
    },
    "one_live_lease_for_each_job": {
        "an attempt is granted to two": again(Granted, request_id=b"another"),
        "two processes overlap": changed(ProcessGone, at_ms=-1),
        "a command is run twice": again(ProcessStarted, pid=2**31),
    },
    "attempts_only_rise": {
        "an old attempt is granted": again(Granted, lambda grant: grant.attempt > 1, attempt=1),
        "an old attempt is kept": again(Judged, lambda one: one.attempt > 1, attempt=1, verdict=Verdict.KEPT),
        "an attempt is left out": logged(has("JOB_LEASED"), of_another_attempt),
    },
    "what_the_broker_said_stands": {
        "a grant was not committed": again(Granted, attempt=99),
        "acknowledged events are gone": changed(Stored, lambda told: told.code is None, next_index=9_999),
        "a completion is gone": changed(Completed, attempt=99),
        "a retry is gone": again(Completed, finishes, state=JobState.SCHEDULED),
        "a release is gone": changed(Released, attempt=99),
    },
    "no_lease_is_given_away_early": {f"a lease that {why} expires early": expired_early(why) for why in WHY},
    "nothing_outlives_its_lease": {
        "a process outlives its lease": changed(ProcessGone, at_ms=-1),
        "a process runs before its lease": changed(ProcessStarted, at_ms=0),
        "a process runs without a lease": changed(ProcessStarted, attempt=99),
    },
    "lost_agents_are_counted": {
        "too many agents are lost": asked(lambda case: case.folded.lost > 1, max_attempts=1),
        "a job fails before its agents are lost": asked(ended(Reason.AGENT_LOST), max_attempts=99),
        "a job goes on after its last agent": asked(
            lambda case: completed(case) and case.folded.lost, max_attempts=lambda case: case.folded.lost
        ),
    },
    "what_was_not_begun_is_not_counted": {
        "a refusal is counted": logged(has("JOB_RELEASED"), reworded("JOB_RELEASED", lost=True)),
        "a refusal ends a job": asked(ended(Reason.COMMAND_NOT_FOUND), args=("{}",)),
    },
    "what_ends_or_keeps_is_always_stored": {"a renewal is refused": told(REFUSED)},
    "delayed_jobs_are_never_early": {
        "a delayed job is early": logged(has("JOB_LEASED"), reworded("JOB_SCHEDULED", not_before_ms=NEVER_MS)),
        "a delay is forgotten": asked(has("JOB_LEASED"), not_before_ms=NEVER_MS),
    },
    "only_jobs_that_no_agent_began_expire": {
        "a job expires early": asked(ended(Reason.EXPIRED), expires=Expiry(after_ms=NEVER_MS)),
        "a job without an expiry expires": asked(ended(Reason.EXPIRED), expires=None),
        "an expired job is leased": asked(waited, expires=Expiry(after_ms=1)),
    },
    "retries_keep_to_their_policy": {
        "a command is retried too often": asked(ran_again, retry=None),
        "a retry is forgotten": asked(exhausted, retry=lambda case: replace(case.job.spec.retry, limit=99)),
        "a retry pauses for too long": logged(ran_again, reworded("JOB_SCHEDULED", not_before_ms=NEVER_MS)),
    },
    "priority_and_then_submission_order_are_kept": {
        "a lesser job goes first": a_lesser_job_goes_first,
        "the second of a request goes first": changed(Acknowledged, several, job_ids=lambda told: told.job_ids[::-1]),
    },
    "agents_have_what_their_jobs_require": {
        "an agent without the tags leases": asked(has("JOB_LEASED"), require={"gpu": "1"})
    },
    "a_paused_queue_leases_nothing": {"a paused queue leases": paused_for_good},
    "sequences_are_dense": {
        "a log has a hole": changed(FinalEvents, events=lambda log: log.events[:1] + log.events[2:]),
        "a log's end is missing": shown(completed, last_sequence=999),
    },
    "events_never_change": {
        "an event changes": changed(Monitored, event=lambda seen: replace(seen.event, attempt=99)),
        "a shown event is gone": changed(Monitored, event=lambda seen: replace(seen.event, sequence=999)),
    },
    "a_monitor_sees_a_prefix": {
        "a monitor misses one": dropped(Monitored, lambda seen: seen.event.sequence == seen.from_sequence + 1),
        "a monitor is shown more than all": again(
            Monitored, of_kind("JOB_FINISHED"), event=lambda seen: replace(seen.event, sequence=seen.event.sequence + 1)
        ),
        "a monitor ends before the end": dropped(Monitored, of_kind("JOB_FINISHED")),
        "a monitor resumes too early": changed(Monitored, from_sequence=lambda seen: seen.event.sequence + 1),
    },
    "only_the_holder_writes": {
        "nobody writes": logged(has("PROCESS_START"), inserted("PROCESS_START", "JOB_SCHEDULED"))
    },
    "completed_means_a_complete_log": {
        "a byte is missing": logged(
            lambda case: completed(case) and "OUTPUT" in kinds(case),
            reworded("OUTPUT", data=lambda output: output.data[:-1]),
        ),
        "the end is missing": logged(completed, without("PROCESS_END")),
        "a failure is called a success": changed(ProcessGone, lambda gone: gone.exit_code == 0, exit_code=9),
        "nothing ran": dropped(ProcessStarted),
    },
    "nothing_is_logged_that_was_not_written": {
        "output comes twice": logged(has("OUTPUT"), inserted("OUTPUT", "OUTPUT")),
        "output comes behind the end": logged(has("OUTPUT", "PROCESS_END"), inserted("OUTPUT", "PROCESS_END")),
    },
    "a_job_is_the_fold_of_its_events": {
        "a job shows something else": shown(completed, started_ms=1),
        "a waiting job expires": logged(completed, expired_at_once),
        "a job is cancelled twice": logged(has(CANCEL), inserted(CANCEL, CANCEL)),
    },
    "what_waits_for_a_reader_is_bounded": {
        "a reader is sent long messages": told(replace(TOLD, message_bytes=65_536)),
        "too much waits": told(replace(TOLD, waiting_bytes=100_000_000)),
    },
    "no_job_runs_before_what_it_waits_for": {
        "a job runs though another has not failed": asked(
            lambda case: has("JOB_LEASED")(case) and successes(case), after=successes
        ),
        "a job is leased and never unblocked": logged(has("JOB_UNBLOCKED", "JOB_LEASED"), without("JOB_UNBLOCKED")),
    },
    "a_job_is_skipped_for_a_reason": {
        "a job is skipped that waits for none": asked(lambda case: case.job.state is JobState.SKIPPED, after=()),
    },
}
