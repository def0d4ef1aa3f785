"""The laws of leases: one at a time, none given away early, nothing alive behind its lease, all told truly."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from airunner.protocol.errors import NoSpace
from airunner.protocol.events import JobExpired, JobFinished, JobReleased, JobScheduled
from airunner.protocol.job import JobState, Reason
from airunner.protocol.replies import Verdict
from tests.simulation.evidence import ROUNDING_MS, Case, Evidence, Found, Life
from tests.simulation.fold import Stretch
from tests.simulation.history import Completed, Granted, Judged, Killed, RefusedReply, Released, Stored


def one_live_lease_for_each_job(evidence: Evidence) -> Found:
    """An attempt is granted to one request only, however often that repeats, and runs its command once.

    No two processes of a job ever run at the same time; on a machine that sleeps nothing runs.
    """
    for job_id, grants in evidence.grants.items():
        holders: dict[int, Granted] = {}
        for grant in grants:
            holder = holders.setdefault(grant.attempt, grant)
            if holder.request_id != grant.request_id:
                yield job_id, f"attempt {grant.attempt} was granted to {holder.machine} and to {grant.machine}"
    for job_id, lives in evidence.lives.items():
        for before, after in pairwise(lives):
            if before.started.attempt == after.started.attempt:
                yield job_id, f"attempt {after.started.attempt} was started again by {_named(after)}"
            ran_until_ms = evidence.ran_until_ms(before)
            if ran_until_ms is None or ran_until_ms > after.started.at_ms:
                yield job_id, f"{_named(after)} started while {_named(before)} lived"


def attempts_only_rise(evidence: Evidence) -> Found:
    """Attempts count 1, 2, 3, …: in the log, in what the broker grants and in what is shown of a job.

    Nothing of an older attempt is granted or kept once a newer one was granted.
    """
    newest: dict[str, int] = {}
    for record in evidence.history if not evidence.fleet else ():  # a broker that was stopped speaks late
        if isinstance(record, Granted):
            if record.attempt < newest.get(record.job_id, 0):
                yield record.job_id, f"attempt {record.attempt} was granted after {newest[record.job_id]}"
            newest[record.job_id] = max(newest.get(record.job_id, 0), record.attempt)
        elif (
            isinstance(record, Judged)
            and record.verdict is not Verdict.LOST
            and record.attempt < newest.get(record.job_id, 0)
        ):
            yield record.job_id, f"attempt {record.attempt} was kept after {newest[record.job_id]} was granted"
    for job_id, case in evidence.cases.items():
        attempts = [lease.attempt for lease in case.folded.leases]
        if attempts != list(range(1, len(attempts) + 1)):
            yield job_id, f"was leased as {attempts}"


def what_the_broker_said_stands(evidence: Evidence) -> Found:
    """Commit, then speak: what a reply said of an attempt is in the log for ever, whatever crashed afterwards."""
    for record in evidence.history:
        if not isinstance(record, Granted | Judged | Stored | Completed | Released):
            continue
        case = evidence.cases.get(record.job_id)
        if case is None:
            continue
        lease = case.folded.lease(record.attempt)
        match record:
            case Judged(verdict=Verdict.LOST):
                continue
            case Granted() | Judged() if lease is None:
                yield record.job_id, f"attempt {record.attempt} was granted or kept, and is not in the log"
            case Stored(code=None, next_index=next_index):
                stored = sum(not _brokers(event.kind) for event in case.of_attempt(record.attempt))
                if stored < next_index:
                    yield (
                        record.job_id,
                        f"{next_index} events of attempt {record.attempt} were acknowledged, {stored} are there",
                    )
            case Released() if lease is None or lease.end is None or not isinstance(lease.end.body, JobReleased):
                yield record.job_id, f"attempt {record.attempt} was said to be released, and the log says otherwise"
            case Completed(state=state):
                expected = JobScheduled if state is JobState.SCHEDULED else JobFinished
                if lease is None or lease.end is None or not isinstance(lease.end.body, expected):
                    yield record.job_id, f"attempt {record.attempt} was told {state}, and the log says otherwise"
            case _:
                continue


def no_lease_is_given_away_early(evidence: Evidence) -> Found:
    """A lease expires only when its whole visibility timeout has passed since it was last granted or renewed.

    A renewal counts from when the broker was first given the request; it may have counted from later. A start
    of the broker gives every live lease one more.
    """
    for job_id, case in evidence.cases.items():
        for lease in case.folded.leases:
            if lease.end is None or not isinstance(lease.end.body, JobExpired):
                continue
            expired = evidence.span(lease.end)
            if expired is None:
                continue
            for due_ms, why in promises(evidence, job_id, lease):
                if expired.latest_ms + ROUNDING_MS < due_ms:
                    yield job_id, f"attempt {lease.attempt} {why} until {due_ms} and expired at {expired.latest_ms}"


def nothing_outlives_its_lease(evidence: Evidence) -> Found:
    """A process runs only while its attempt is leased: not before, and when the lease has ended it is dead."""
    for job_id, lives in evidence.lives.items():
        case = evidence.cases.get(job_id)
        if case is not None:
            yield from ((job_id, what) for life in lives for what in _outside(evidence, case, life))


ENDING_OR_KEEPING: Final = ("UpdateJob", "CancelJob", "CompleteJob", "ReleaseJob")
LOST_AT_LAST: Final = (["JOB_EXPIRED", "JOB_FINISHED"], ["JOB_RELEASED", "JOB_FINISHED"])


def lost_agents_are_counted(evidence: Evidence) -> Found:
    """A job whose agent was lost `max_attempts` times is FAILED with `agent-lost`, and never otherwise.

    One that is to be cancelled is CANCELLED instead.
    """
    for job_id, case in evidence.cases.items():
        lost, most = case.folded.lost, case.job.spec.max_attempts
        reason = None if case.job.result is None else case.job.result.reason
        if lost > most:
            yield job_id, f"lost {lost} agents where {most} end it"
        if lost == most and reason not in (Reason.AGENT_LOST, Reason.CANCELLED):
            yield job_id, f"lost all of its {most} agents and is {case.job.state}"
        if reason is not Reason.AGENT_LOST:
            continue
        if (
            lost < most
            or case.job.state is not JobState.FAILED
            or [event.kind for event in case.events[-2:]] not in LOST_AT_LAST
        ):
            yield job_id, f"is {case.job.state} with agent-lost when {lost} of {most} agents were lost"


def what_was_not_begun_is_not_counted(evidence: Evidence) -> Found:
    """A job that is given back before its command has run is not counted towards `max_attempts`.

    But if its agent was killed meanwhile: nobody knows then what it had begun. Nor does a machine that cannot start a
    command end the job as one whose command is not there.
    """
    for job_id, case in evidence.cases.items():
        result, spec = case.job.result, case.job.spec
        not_found = result is not None and result.reason in (Reason.COMMAND_NOT_FOUND, Reason.NOT_EXECUTABLE)
        if not_found and spec.command == "script" and '"missing": true' not in spec.args[0]:
            yield job_id, "is ended because its machine did not start its command"
        begun = {life.started.attempt for life in evidence.lives.get(job_id, ())}
        for lease in case.folded.leases:
            given_back = lease.end is not None and isinstance(lease.end.body, JobReleased) and lease.end.body.lost
            if not given_back or lease.attempt in begun:
                continue
            holders = {grant.machine for grant in evidence.grants.get(job_id, ()) if grant.attempt == lease.attempt}
            leased = evidence.span(lease.begin)
            since_ms = 0 if leased is None else leased.earliest_ms - ROUNDING_MS
            if not any(one.machine in holders and one.at_ms >= since_ms for one in evidence.history.of(Killed)):
                yield job_id, f"attempt {lease.attempt} is counted, though nothing of it was begun"


def what_ends_or_keeps_is_always_stored(evidence: Evidence) -> Found:
    """However full the broker's disk: no renewal, cancel, completion or release is refused for want of space."""
    for refused in evidence.history.of(RefusedReply):
        if refused.code == NoSpace.code and refused.kind in ENDING_OR_KEEPING:
            yield refused.job_id, f"{refused.kind} of {refused.machine} was refused with {refused.code}"


def promises(evidence: Evidence, job_id: str, lease: Stretch) -> Iterator[tuple[int, str]]:
    """Until when this lease was certainly promised, and by what."""
    shortest_ms = evidence.visibility_ms_min
    leased = evidence.span(lease.begin)
    granted = [grant.visibility_ms for grant in evidence.grants.get(job_id, ()) if grant.attempt == lease.attempt]
    visibility_ms = min(granted, default=shortest_ms)
    if leased is not None and visibility_ms is not None:
        yield leased.earliest_ms + visibility_ms, "was leased"
    for verdict in evidence.verdicts.get(job_id, ()):
        if verdict.attempt == lease.attempt and verdict.verdict is not Verdict.LOST:
            yield verdict.asked_at_ms + verdict.visibility_ms, "was renewed"
    ended = evidence.span(lease.end) if lease.end is not None else None
    if leased is None or ended is None or shortest_ms is None:
        return
    for start_ms in evidence.clocks.starts_ms if evidence.clocks.one_broker else ():
        if leased.latest_ms + ROUNDING_MS < start_ms < ended.earliest_ms - ROUNDING_MS:
            yield start_ms + shortest_ms, "was taken over by a new broker"


def _outside(evidence: Evidence, case: Case, life: Life) -> Iterator[str]:
    """What is wrong with when this process lived."""
    lease = case.folded.lease(life.started.attempt)
    if lease is None:
        yield f"{_named(life)} ran without a lease"
        return
    leased = evidence.span(lease.begin)
    if leased is not None and life.started.at_ms + ROUNDING_MS < leased.earliest_ms:
        yield f"{_named(life)} started at {life.started.at_ms} and was leased at {leased.earliest_ms}"
    ended = evidence.span(lease.end) if lease.end is not None else None
    ran_until_ms = evidence.ran_until_ms(life)
    if ended is not None and (ran_until_ms is None or ran_until_ms > ended.latest_ms + ROUNDING_MS):
        until = "to the end" if ran_until_ms is None else f"until {ran_until_ms}"
        kind = lease.end.kind if lease.end is not None else ""
        yield f"{_named(life)} lived {until}, and its lease ended with {kind} at {ended.latest_ms}"


def _named(life: Life) -> str:
    return f"process {life.started.pid} of attempt {life.started.attempt} on {life.started.machine}"


def _brokers(kind: str) -> bool:
    return kind.startswith("JOB_")
