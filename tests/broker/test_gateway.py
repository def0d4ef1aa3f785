"""The Gateway lets in what may come in, refuses the rest, and loses no grant."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker.changefeed import KEY_MS
from airunner.broker.inbox import Pending, Response
from airunner.broker.lifecycle.commands import LeasesCounted, StreamsFound, WatchKeyFound
from airunner.protocol import replies, requests
from airunner.protocol.coding import encode
from airunner.protocol.frames import SERVED, pack_request
from airunner.protocol.job import JobState, Result
from airunner.protocol.message import LeaseRef, Message
from airunner.protocol.names import JobId, WatchKey
from airunner.protocol.replies import AgentSummary, Refused, Verdict
from airunner.protocol.requests import ListJobs, Ping
from tests.broker.gatewaystage import EVENTS_PORT, Stage
from tests.broker.stage import (
    LEASE,
    WALL_MS,
    dequeue,
    enqueue,
    request_id,
)
from tests.protocol.examples import BEYOND_BOUNDS

GRANT = replies.JobsLeased(leases=(LEASE,))
PONG = replies.Pong(revisions=SERVED)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    async with stage.running():
        yield stage


def _ref(job_id: str) -> LeaseRef:
    return LeaseRef(job_id=job_id, attempt=1, task_token=bytes(32))


async def test_a_ping_needs_no_token_and_no_ledger(stage: Stage) -> None:
    stage.router.hear(Ping(), 7)
    assert await stage.router.said.receive() == (b"peer", request_id(7), PONG)
    assert stage.nothing_asked()


@pytest.mark.parametrize(
    ("request_", "token", "jobs"),
    [(ListJobs(), b"read", 0), (enqueue("a", "b"), b"submit", 2), (requests.RetryJob(job_id="j"), b"submit", 1)],
)
async def test_a_request_reaches_the_ledger_as_its_tenants_with_an_id_and_a_key_for_each_new_job(
    stage: Stage, request_: Message, token: bytes, jobs: int
) -> None:
    stage.router.hear(request_, 3, token=token)
    asked = await stage.asked()
    assert (asked.peer, asked.command.tenant, asked.command.request_id) == (b"peer", "acme", request_id(3))
    minted = asked.command.minted
    assert len({job.job_id for job in minted}) == len({job.watch_key for job in minted}) == jobs
    assert len({job.job_id[:2] for job in minted}) == min(jobs, 1)  # near each other in an index
    assert len({job.job_id[:8] for job in minted}) == jobs  # as lists show them


REFUSED = {
    "no token": (pack_request(request_id(1), b"", encode(ListJobs())), "unauthenticated"),
    "another role": (pack_request(request_id(1), b"work,submit", encode(ListJobs())), "forbidden"),
    "two frames": ([b"AR1", bytes(16)], "bad-request"),
    "five frames": ([b"AR1", bytes(16), b"", b"\x80", b""], "bad-request"),
    "a long token": ([b"AR1", bytes(16), b"x" * 8_193, encode(Ping())], "bad-request"),
    "no MessagePack": ([b"AR1", bytes(16), b"", b"\xc1"], "bad-request"),
    **{name: ([b"AR1", bytes(16), b"read", body], "bad-request") for name, body in BEYOND_BOUNDS.items()},
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_may_not_come_in_is_refused_and_counted_and_nothing_applied(stage: Stage, case: str) -> None:
    frames, code = REFUSED[case]
    stage.router.hear_frames(frames)
    assert await stage.code() == code
    assert stage.counts["requests_refused"] == 1
    assert stage.nothing_asked()


@pytest.mark.parametrize(
    "frames", [[], [b""], [b"AR1"], [b"XR1", bytes(16), b"", b"\x80"], [b"AR1", b"short", b"", b"\x80"]]
)
async def test_garbage_is_counted_and_the_next_request_served(stage: Stage, frames: list[bytes]) -> None:
    stage.router.hear_frames(frames)
    stage.router.hear(Ping())
    assert await stage.reply() == PONG
    assert stage.counts["garbage"] == 1


async def test_busy_instead_of_growth() -> None:
    stage = Stage(inbox_max=1)
    async with stage.running():
        stage.router.hear(ListJobs(), 1, token=b"read")
        stage.router.hear(ListJobs(), 2, token=b"read")
        _, number, reply = await stage.router.said.receive()
        assert number == request_id(2)
        assert reply.code == "busy"


async def test_who_may_watch_is_told_where_and_who_watches_as_many_as_it_may_is_refused_another(stage: Stage) -> None:
    for key, served in ((b"a", True), (b"b", False), (b"a", True)):
        watched = replies.JobWatched(watch_key=key * 32, events_port=EVENTS_PORT) if served else None
        watch, replay = requests.WatchJob(job_id="j"), requests.ReplayJobEvents(job_id="j", watch=True)
        reply = await stage.converse(watch, WatchKeyFound(WatchKey(key * 32)), token=b"read")
        assert reply == watched if served else reply.code == "quota"
        page = replies.JobEventsReplayed(runs=(), next_sequence=1, last_sequence=0, finished=False)
        reply = await stage.converse(replay, WatchKeyFound(WatchKey(key * 32), page), token=b"read")
        assert reply == msgspec.structs.replace(page, watched=watched), "its events are told anyhow"
    reply = await stage.converse(requests.WatchTenant(), StreamsFound(("",)), token=b"read")
    assert reply.code == "quota"


async def test_who_may_list_is_given_the_streams_of_its_tenants_changes(stage: Stage) -> None:
    keys: list[bytes] = []
    for token in (b"read", b"read", b"read@other"):
        reply = await stage.converse(requests.WatchTenant(), StreamsFound(("",)), token=token)
        assert (reply.events_port, reply.valid_ms, [stream.queue for stream in reply.streams]) == (7071, KEY_MS, [""])
        keys.append(reply.streams[0].watch_key)
    assert keys[0] == keys[1] != keys[2]
    stage.router.hear(requests.WatchTenant(), token=b"submit")
    assert (await stage.reply()).code == "forbidden"


@pytest.mark.parametrize(
    ("repeat", "gone", "given_back"),
    [
        (None, {b"old"}, True),
        (b"work@other", {b"old"}, True),
        (b"work", {b"old"}, False),  # else two agents would run one job
        (b"work", {b"old", b"new"}, True),
    ],
    ids=["alone", "another tenant's request of its id", "repeated", "repeated and gone too"],
)
async def test_a_grant_that_reaches_nobody_is_given_back_once(
    stage: Stage, repeat: bytes | None, gone: set[bytes], *, given_back: bool
) -> None:
    stage.router.hear(dequeue(), token=b"work", peer=b"old")
    asked = [await stage.asked()]
    if repeat is not None:
        stage.router.hear(dequeue(), token=repeat, peer=b"new")
        asked.append(await stage.asked())
    stage.router.gone |= gone
    for pending in asked:
        stage.answer(pending, GRANT)
    if given_back:
        back = await stage.asked()
        assert (back.peer, back.command.tenant) == (None, "acme")
        assert (back.command.request, back.command.deadline_ms) == (requests.ReleaseJob(lease=_ref("j")), None)
        assert stage.counts["replies_undelivered"] == len(gone)
    if repeat is not None and b"new" not in gone:
        assert (await stage.router.said.receive())[0] == b"new"
    stage.answer(asked[0], Refused(code="conflict", message=""))
    await wait_all_tasks_blocked()
    assert stage.nothing_asked(), "another reply whose peer is gone is let go"


async def test_a_grant_that_one_connection_has_is_not_given_back_when_the_other_copy_comes_late(stage: Stage) -> None:
    """Two connections have no order: the copy from the one that is gone may be received last."""
    asked: list[Pending] = []
    for peer in (b"new", b"old"):
        stage.router.hear(dequeue(), token=b"work", peer=peer)
        asked.append(await stage.asked())
    stage.router.gone.add(b"old")
    for pending in asked:
        stage.answer(pending, GRANT)
    assert (await stage.router.said.receive())[0] == b"new"
    await wait_all_tasks_blocked()
    assert stage.nothing_asked()


async def test_a_grant_of_one_of_several_brokers_is_given_back_as_long_as_it_has_its_first_deadline(
    stage: Stage,
) -> None:
    stage.router.hear(dequeue(), token=b"work", peer=b"gone")
    asked = await stage.asked()
    stage.router.gone.add(b"gone")
    stage.answers.send_nowait([Response(asked.peer, asked.command, GRANT, asked.key, deadline_ms=7)])
    assert (await stage.asked()).command.deadline_ms == 7


async def test_a_grant_that_another_broker_may_have_told_is_not_given_back(stage: Stage) -> None:
    stage.router.hear(dequeue(), token=b"work", peer=b"gone")
    asked = await stage.asked()
    stage.router.gone.add(b"gone")
    stage.answers.send_nowait([Response(asked.peer, asked.command, GRANT, asked.key, repeated=True)])
    await wait_all_tasks_blocked()
    assert stage.nothing_asked()


def _heartbeat(*verdicts: Verdict, agent: str = "a") -> tuple[requests.UpdateJob, replies.JobsUpdated]:
    """One of the jobs "j0", "j1" … and what is said to it."""
    refs = tuple(_ref(f"j{n}") for n in range(len(verdicts)))
    said = (
        replies.LeaseVerdict(job_id=JobId(f"j{n}"), attempt=1, verdict=verdict) for n, verdict in enumerate(verdicts)
    )
    return requests.UpdateJob(agent=agent, leases=refs, visibility_ms=60_000), replies.JobsUpdated(leases=tuple(said))


async def test_a_nudge_goes_once_to_the_newest_connection_of_the_holder_until_it_or_the_job_is_gone(
    stage: Stage,
) -> None:
    await stage.converse(dequeue(), GRANT, token=b"work", peer=b"agent")
    assert await stage.nudged("j") == [b"agent"]
    stage.router.gone.add(b"agent")
    assert await stage.nudged("j") == []
    assert stage.counts["replies_undelivered"] == 1
    heartbeat, said = _heartbeat(Verdict.KEPT, Verdict.CANCEL, Verdict.LOST)
    completion = requests.CompleteJob(lease=_ref("j0"), event_count=0, result=Result(exit_code=0))
    for peer in (b"old", b"new"):
        await stage.converse(heartbeat, said, token=b"work", peer=peer)
    assert await stage.nudged("j0", "j1", "unknown") == [b"new"]
    assert stage.nothing_asked(), "nobody answers a nudge"
    assert await stage.nudged("j2") == [], "a lease that is lost is not this agent's"
    await stage.converse(completion, replies.JobCompleted(state=JobState.COMPLETED), token=b"work")
    assert await stage.nudged("j0") == []
    assert await stage.nudged("j1") == [b"new"]
    await stage.converse(requests.ReleaseJob(lease=_ref("j1")), replies.JobReleasedReply(), token=b"work")
    assert await stage.nudged("j1") == []


async def test_agents_are_listed_as_they_were_heard_with_the_leases_that_the_store_counts(stage: Stage) -> None:
    heartbeat, _ = _heartbeat(agent="b")
    stage.router.hear(dequeue(), token=b"work")
    stage.router.hear(heartbeat, token=b"work")
    stage.router.hear(msgspec.structs.replace(dequeue(), agent="reader"), token=b"read")
    assert await stage.code() == "forbidden"
    for _ in range(2):
        await stage.asked()
    for after, names in ((None, ["a", "b", "c"]), ("a", ["b", "c"]), ("c", [])):
        counted = LeasesCounted({"a": 2, "c": 1})
        listed = await stage.converse(requests.ListAgents(after=after), counted, token=b"read")
        assert [agent.name for agent in listed.agents] == names
        if after is None:
            assert listed.agents[0] == AgentSummary(
                name="a", slots=1, leases=2, seen_ms=WALL_MS, silent_ms=0, queues=("default",)
            )
            assert listed.agents[2] == AgentSummary(name="c", slots=0, leases=1, seen_ms=0)


async def test_a_machine_that_was_revoked_is_refused_at_once_and_given_no_job_that_it_waited_for(stage: Stage) -> None:
    stage.router.hear(dequeue(wait_ms=30_000), token=b"work")
    parked = await stage.asked()
    del stage.listed[b"local"]
    for request in (Ping(), ListJobs()):
        stage.router.hear(request, token=b"read")
        assert await stage.code() == "unauthenticated"
    stage.answer(parked, GRANT)
    assert isinstance(await stage.reply(), Refused)
    given_back = (await stage.asked()).command.request
    assert given_back == requests.ReleaseJob(lease=_ref("j"))
    assert await stage.nudged("j") == []
    assert stage.nothing_asked()
