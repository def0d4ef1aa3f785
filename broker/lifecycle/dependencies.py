"""Dependencies between jobs: a job that waits for others is BLOCKED until they have ended, or is skipped.

```
 submit B after A ─► B is BLOCKED, B.unmet = 1, B.attached = 0            news: Attach(B, first of its `after`)
 Attach           ─► A.dependents += B; if A has ended: B.unmet -= 1         and so on for the rest
 A ends           ─► A keeps its dependents, and is due                      news: FollowEnd(A, its first dependents)
 FollowEnd        ─► A.dependents -= B, B.unmet -= 1; or B is SKIPPED        and so on for the rest
```

Each arrow is one transaction. B is SCHEDULED once `unmet` is 0.

- The dependents of a job are a part of its row: an edge is stored exactly as long as it is counted in `unmet`.
- A job may have more of both than a transaction can change: each follow-up takes `STEP_MAX` of them.
- Until the last follow-up the job is due: if the broker ends before, or its store is full, `Expire` makes it again.
"""

from __future__ import annotations

from typing import Final

import msgspec

from airunner.broker.lifecycle.commands import Attach, FollowEnd, TenantRequest
from airunner.broker.lifecycle.world import World
from airunner.broker.store.rows import JobRow, Keys
from airunner.protocol.dependencies import DEPENDENTS_MAX, Ending, dependency_of
from airunner.protocol.errors import BadRequest, CorruptLog, NotFound
from airunner.protocol.events import JobUnblocked
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.names import JobId
from airunner.protocol.states import TRANSITIONS, Change

STEP_MAX: Final = 32  # jobs that a follow-up changes beside its own, with as many events
AGAIN_MS: Final = 1_000  # after which a follow-up is made again, if it was not applied
_MEETS: Final = {
    Ending.SUCCESS: frozenset({JobState.COMPLETED}),
    Ending.FAILURE: frozenset({JobState.FAILED}),
    Ending.ANY: frozenset(state for state in JobState if state.terminal),
}
_Dependents = dict[JobId, Ending]
_decoder: Final = msgspec.msgpack.Decoder(_Dependents)
_encoder: Final = msgspec.msgpack.Encoder()


def load_dependencies(keys: Keys, tenant: str, spec: JobSpec) -> None:
    """Request the jobs that a new job waits for."""
    for text in spec.after:
        keys.add_job(tenant, dependency_of(text).job_id)


def require_dependencies(world: World, command: TenantRequest, spec: JobSpec) -> None:
    """Require that the jobs that a new one waits for exist, and have room for it. Raises `BadRequest`, `CorruptLog`.

    In a queue that the sender may not use no job exists.
    """
    for job_id, _ in map(dependency_of, spec.after):
        try:
            job = world.job(command.tenant, job_id)
        except NotFound:
            job = None
        if job is None or (command.queues is not None and job.queue not in command.queues):
            raise BadRequest(f"after: there is no job {job_id}; give the id of a job")
        if len(_dependents(job)) >= DEPENDENTS_MAX:
            raise BadRequest(f"after: {DEPENDENTS_MAX:,} jobs wait for job {job_id} already; wait for another job")


def announce_attaching(world: World, job: JobRow, spec: JobSpec) -> None:
    """Have a BLOCKED job be attached to the next jobs that it waits for; after the last, it is delayed as it has to."""
    world.change(job)
    job.broker = world.broker
    rest = spec.after[job.attached : job.attached + STEP_MAX]
    if rest:
        job.due_ms = world.now_ms + AGAIN_MS
        awaited = tuple([dependency_of(text).job_id for text in rest])
        attach = Attach(tenant=job.tenant, job_id=job.job_id, start=job.attached, awaited=awaited)
        world.news.follow_ups.append(attach)
    else:
        job.due_ms = spec.not_before_ms if (spec.not_before_ms or 0) > world.now_ms else None


def load_attached(keys: Keys, command: Attach) -> None:
    """Request the rows on which an Attach is decided; a job that is skipped may be the first of its queue."""
    keys.add_job(command.tenant, command.job_id, spec=True)
    for job_id in command.awaited:
        keys.add_job(command.tenant, job_id)


def attached(world: World, job: JobRow, command: Attach) -> bool:
    """Attach a BLOCKED job to these jobs; False: one has ended otherwise than it had to, or is not there any more."""
    spec = world.spec(job)
    world.change(job)
    for text in spec.after[job.attached : job.attached + len(command.awaited)]:
        job_id, ending = dependency_of(text)
        try:
            awaited = world.job(command.tenant, job_id)
        except (NotFound, CorruptLog):
            return False
        state = JobState(awaited.state)
        if not state.terminal:
            world.change(awaited)
            awaited.dependents = _encoder.encode(_dependents(awaited) | {job.job_id: ending})
        elif state in _MEETS[ending]:
            job.unmet -= 1
        else:
            return False
    job.attached += len(command.awaited)
    announce_attaching(world, job, spec)
    return True


def announce_end(world: World, job: JobRow) -> None:
    """Have the first dependents of a job that has ended follow its end."""
    if job.dependents:
        world.change(job)
        job.due_ms, job.pause_ms, job.broker = world.now_ms + AGAIN_MS, None, world.broker
        first = tuple(_dependents(job))[:STEP_MAX]
        world.news.follow_ups.append(FollowEnd(tenant=job.tenant, job_id=job.job_id, dependents=first))


def load_followed(keys: Keys, command: FollowEnd) -> None:
    """Request the rows on which a FollowEnd is decided; a later DequeueJob of the same batch may lease a dependent."""
    keys.add_job(command.tenant, command.job_id)
    for job_id in command.dependents:
        keys.add_job(command.tenant, job_id, spec=True)


def met_by(world: World, job: JobRow, command: FollowEnd) -> list[tuple[JobRow, bool]]:
    """Take these dependents from an ended job; return those that still wait, and whether it ended as they need."""
    left = _dependents(job)
    found: list[tuple[JobRow, bool]] = []
    for job_id in command.dependents:
        if (ending := left.pop(job_id, None)) is None:
            continue  # another FollowEnd has taken it
        try:
            dependent = world.job(command.tenant, job_id)
        except (NotFound, CorruptLog):
            continue  # it was removed, or is out of use
        if dependent.state == JobState.BLOCKED:
            found.append((dependent, JobState(job.state) in _MEETS[ending]))
    world.change(job)
    job.dependents = _encoder.encode(left) if left else b""
    job.due_ms = None
    announce_end(world, job)
    return found


def unblock(world: World, job: JobRow) -> None:
    """Have a BLOCKED job wait in its queue, unless it still waits for a job."""
    if job.unmet == 0:
        before = world.change(job)
        job.state = TRANSITIONS[JobState.BLOCKED, Change.UNBLOCK]
        job.unblocked_ms = world.now_ms
        world.update_standing(job, before)
        world.write(job, [JobUnblocked(timestamp_ms=world.now_ms)])


def _dependents(job: JobRow) -> _Dependents:
    return _decoder.decode(job.dependents) if job.dependents else {}
