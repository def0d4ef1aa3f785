"""Dependencies between jobs: a job that waits for others is BLOCKED until they have ended, or is SKIPPED.

```
 submit B after A ─► A.dependents += B, B.unmet += 1, B is BLOCKED          if A has not ended
 A ends           ─► A keeps its dependents, and is due                      news: FollowEnd(A, its first dependents)
 FollowEnd        ─► A.dependents -= B, B.unmet -= 1; or B is SKIPPED        and so on for the rest
```

Each arrow is one transaction. B is SCHEDULED once `unmet` is 0; `ending` ends it if it is skipped.

- The dependents of a job are a part of its row: an edge of a BLOCKED job is there exactly as long as `unmet` counts it.
- A request changes up to `NEAR_MAX` rows of jobs that its own wait for. The others are in `B.awaits`, and an Attach
  follows for the first of them, which adds the edges, or counts down if they have ended, and so on for the rest.
- A follow-up changes up to `STEP_MAX` rows besides its own. Until the last one the job is due: if the broker ends
  before, or its store is full, `Expire` makes it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from airunner.broker.lifecycle.commands import Attach, FollowEnd, TenantRequest
from airunner.broker.lifecycle.world import Undecodable, World
from airunner.broker.store.rows import JobRow, Keys
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.dependencies import DEPENDENTS_MAX, Ending, dependency_of
from airunner.protocol.errors import BadRequest, CorruptLog, NotFound
from airunner.protocol.events import JobUnblocked
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.names import JobId
from airunner.protocol.requests import ENQUEUE_MAX
from airunner.protocol.states import TRANSITIONS, Change

NEAR_MAX: Final = 16  # jobs to which those of a request are attached at once: each is a row that it changes
STEP_MAX: Final = 32  # jobs that a follow-up changes beside its own, with as many events
AGAIN_MS: Final = 1_000  # after which a follow-up is made again, if it was not applied
_MEETS: Final = {
    Ending.SUCCESS: frozenset({JobState.COMPLETED}),
    Ending.FAILURE: frozenset({JobState.FAILED}),
    Ending.ANY: frozenset(state for state in JobState if state.terminal),
}
_decoder: Final = msgspec.msgpack.Decoder(dict[str, Ending])
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
        if len(_decoded(job, job.dependents)) > DEPENDENTS_MAX - ENQUEUE_MAX:
            raise BadRequest(f"after: as many jobs as may wait for job {job_id} already; wait for another job")


def nearest(jobs: Sequence[JobSpec]) -> frozenset[str]:
    """Choose the jobs to which those of a request are attached when they are submitted: the first `NEAR_MAX`."""
    near: dict[str, None] = {}
    for spec in jobs:
        if spec.after:
            near.update(dict.fromkeys(dependency_of(text).job_id for text in spec.after))
    return frozenset(list(near)[:NEAR_MAX])


def awaited_by(world: World, tenant: str, spec: JobSpec) -> dict[str, Ending] | None:
    """List the jobs that a new one waits for and that have not ended; None: one did not end as required."""
    awaited: dict[str, Ending] = {}
    for job_id, ending in map(dependency_of, spec.after):
        state = JobState(world.job(tenant, job_id).state)
        if not state.terminal:
            awaited[job_id] = ending
        elif state not in _MEETS[ending]:
            return None
    return awaited


def attach_new(world: World, job: JobRow, awaited: dict[str, Ending], near: frozenset[str]) -> None:
    """Attach a new job to the jobs in `near` that it waits for; an Attach follows for the rest."""
    left: dict[str, Ending] = {}
    for job_id, ending in awaited.items():
        if job_id in near:
            _add_edge(world, world.job(job.tenant, job_id), job, ending)
        else:
            left[job_id] = ending
    if left:
        job.awaits = _encoder.encode(left)
        follow_attach(world, job, None)


def follow_attach(world: World, job: JobRow, spec: JobSpec | None) -> None:
    """Have the next Attach follow for a BLOCKED job; after the last one, it is delayed as its `spec` says."""
    world.change(job)
    job.broker = world.broker
    if job.awaits:
        job.due_ms, job.pause_ms = world.now_ms + AGAIN_MS, AGAIN_MS
        first = tuple(_decoded(job, job.awaits))[:STEP_MAX]
        world.news.follow_ups.append(Attach(tenant=job.tenant, job_id=job.job_id, awaited=first))
    else:
        not_before_ms = spec.not_before_ms if spec is not None else None
        job.due_ms = not_before_ms if (not_before_ms or 0) > world.now_ms else None
        job.pause_ms = None


def load_attached(keys: Keys, command: Attach) -> None:
    """Request the rows on which an Attach is decided; a later DequeueJob of the same batch may lease the job."""
    keys.add_job(command.tenant, command.job_id, spec=True)
    for job_id in command.awaited:
        keys.add_job(command.tenant, job_id)


def attach_to(world: World, job: JobRow, command: Attach) -> bool:
    """Attach a BLOCKED job to these jobs; False: one did not end as required, or was removed since.

    Of one with `DEPENDENTS_MAX` dependents the end is looked at every `AGAIN_MS` instead.
    """
    left, full = _decoded(job, job.awaits), False
    world.change(job)
    for job_id in command.awaited:
        if (ending := left.pop(job_id, None)) is None:
            continue  # another Attach has done it
        try:
            awaited = world.job(command.tenant, job_id)
        except (NotFound, CorruptLog):
            if ending is not Ending.ANY:
                return False
            job.unmet -= 1
            continue
        state = JobState(awaited.state)
        if state.terminal and state not in _MEETS[ending]:
            return False
        if state.terminal:
            job.unmet -= 1
        elif len(_decoded(awaited, awaited.dependents)) < DEPENDENTS_MAX:
            _add_edge(world, awaited, job, ending)
        else:
            left[job_id], full = ending, True
    job.awaits = _encoder.encode(left) if left else b""
    follow_attach(world, job, world.spec(job))
    if full:
        world.news.follow_ups.pop()
    return True


def _add_edge(world: World, awaited: JobRow, job: JobRow, ending: Ending) -> None:
    world.change(awaited)
    awaited.dependents = _encoder.encode(_decoded(awaited, awaited.dependents) | {job.job_id: ending})


def follow_up_end(world: World, job: JobRow) -> None:
    """Have a FollowEnd follow for the first dependents of a job that has ended."""
    if job.dependents:
        world.change(job)
        job.due_ms, job.pause_ms, job.broker = world.now_ms + AGAIN_MS, AGAIN_MS, world.broker
        first = tuple(map(JobId, _decoded(job, job.dependents)))[:STEP_MAX]
        world.news.follow_ups.append(FollowEnd(tenant=job.tenant, job_id=job.job_id, dependents=first))


def load_followed(keys: Keys, command: FollowEnd) -> None:
    """Request the rows on which a FollowEnd is decided; a later DequeueJob of the same batch may lease a dependent."""
    keys.add_job(command.tenant, command.job_id)
    for job_id in command.dependents:
        keys.add_job(command.tenant, job_id, spec=True)


def take_dependents(world: World, job: JobRow, command: FollowEnd) -> list[tuple[JobRow, bool]]:
    """Take these dependents from an ended job; return those that still wait, and whether it ended as they need."""
    left = _decoded(job, job.dependents)
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
    job.due_ms = job.pause_ms = None
    follow_up_end(world, job)
    return found


def unblock(world: World, job: JobRow) -> None:
    """Have a BLOCKED job wait in its queue, unless it still waits for a job."""
    if job.unmet == 0:
        before = world.change(job)
        job.state = TRANSITIONS[JobState.BLOCKED, Change.UNBLOCK]
        job.unblocked_ms = world.now_ms
        world.update_standing(job, before)
        world.write(job, [JobUnblocked(timestamp_ms=world.now_ms)])


def _decoded(job: JobRow, edges: bytes) -> dict[str, Ending]:
    """Decode a list of edges in a job's row. Raises `Undecodable`: the job is set aside."""
    try:
        return _decoder.decode(edges) if edges else {}
    except UNDECODABLE as error:
        raise Undecodable(job.job_id) from error
