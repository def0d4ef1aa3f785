"""What a dead agent left is offered until the broker takes it, or says that it never will."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest

from airunner.agent.output.recovery import recover
from airunner.agent.output.spool import Spool, SpoolHeader, spools_in
from airunner.protocol.errors import NoSpace, PeerError, StaleToken, Unauthenticated
from airunner.protocol.events import Heartbeat, encode_bodies
from airunner.protocol.names import JobId
from airunner.protocol.replies import BatchStored, JobEventsPublished, JobReleasedReply, LeaseRef, Reply
from airunner.protocol.requests import PublishJobEvents, ReleaseJob, Request
from airunner.protocol.requestsize import RequestSize
from tests.client.wire import edges

pytestmark = pytest.mark.anyio
JOB = JobId("job")


class Refusing:
    """A channel whose broker refuses for some time."""

    def __init__(self, *refusals: PeerError | str) -> None:
        self.refusals = list(refusals)
        self.request_size = RequestSize()
        self.asked: list[Request] = []

    async def ask(self, request: Request, **_: object) -> Reply:
        self.asked.append(request)
        refusal = self.refusals.pop(0) if self.refusals else None
        if isinstance(refusal, PeerError):
            raise refusal
        if isinstance(request, ReleaseJob):
            return JobReleasedReply()
        assert isinstance(request, PublishJobEvents)
        return JobEventsPublished(batches=(BatchStored(job_id=JOB, attempt=1, next_index=1, code=refusal),))


@pytest.fixture
def left(tmp_path: Path) -> Path:
    spool = Spool.create(tmp_path / "job.1", SpoolHeader(lease=LeaseRef(job_id=JOB, attempt=1, task_token=bytes(32))))
    spool.append(0, 1, encode_bodies([Heartbeat(timestamp_ms=1)]))
    spool.close()
    return spool.path


async def test_what_is_refused_for_now_is_offered_again_and_nothing_is_lost(left: Path) -> None:
    channel = Refusing(NoSpace(), Unauthenticated(), "no-space", NoSpace())
    said: list[str] = []
    await recover([left], channel, edges(), said.append)
    assert spools_in(left.parent) == []
    *published, released = channel.asked
    assert len(published) == 5
    assert isinstance(released, ReleaseJob)
    assert released.lost
    assert len(said) == 2  # once that it is refused, once that it is done


@pytest.mark.parametrize("final", [StaleToken(), "stale-token", "not-found"])
async def test_what_will_never_be_taken_is_let_go(left: Path, final: PeerError | str) -> None:
    channel = Refusing(final)
    await recover([left], channel, edges(), lambda _: None)
    assert spools_in(left.parent) == []
    assert len(channel.asked) == 1


async def test_a_spool_of_another_format_is_left_as_it_is_and_the_others_are_delivered(left: Path) -> None:
    foreign = left.parent / "another.1"
    newer = msgpack.packb({"format": 3, "lease": {"job": "another"}})
    foreign.write_bytes(newer)
    channel = Refusing()
    said: list[str] = []
    await recover(spools_in(left.parent), channel, edges(), said.append)
    assert spools_in(left.parent) == [foreign]
    assert foreign.read_bytes() == newer
    assert [type(request) for request in channel.asked] == [PublishJobEvents, ReleaseJob]
    assert any("another version of airunner (format 3)" in line for line in said)
