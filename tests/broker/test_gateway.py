"""The Gateway lets in what may come in, refuses the rest, and loses no grant."""

from __future__ import annotations

import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker.lifecycle.commands import LeasesCounted, WatchKeyFound
from airunner.certs.allowlist import Entry, PeerRole
from airunner.certs.principal import Role
from airunner.protocol.coding import encode
from airunner.protocol.frames import SERVED
from airunner.protocol.job import JobState, Result
from airunner.protocol.names import JobId, WatchKey
from airunner.protocol.queues import QueueMode
from airunner.protocol.replies import (
    AgentsListed,
    AgentSummary,
    JobCompleted,
    JobReleasedReply,
    JobsUpdated,
    JobWatched,
    LeaseRef,
    LeaseVerdict,
    Pong,
    Refused,
    Reply,
    Verdict,
)
from airunner.protocol.requests import (
    CancelJob,
    CompleteJob,
    EnqueueJob,
    GetJob,
    ListAgents,
    ListJobs,
    ListQueues,
    ListSecrets,
    Ping,
    ReleaseJob,
    RemoveSecret,
    Request,
    RetryJob,
    SetSecret,
    UpdateJob,
    UpdateQueue,
    WatchJob,
)
from tests.broker.gatewaying import EVENTS_PORT, GRANT, Stage
from tests.broker.stage import WALL_MS, dequeue, enqueue, request_id
from tests.protocol.examples import BEYOND_BOUNDS

pytestmark = pytest.mark.anyio


def _ref(job_id: str) -> LeaseRef:
    return LeaseRef(job_id=job_id, attempt=1, task_token=bytes(32))


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_a_ping_needs_no_token_and_no_ledger(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(Ping(), 7)
        assert await stage.router.said.receive() == (b"peer", request_id(7), Pong(revisions=SERVED))
        assert stage.nothing_asked()


async def test_a_request_reaches_the_ledger_as_its_tenants(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(ListJobs(), 3, token=b"read")
        asked = await stage.asked()
        assert (asked.peer, asked.command.tenant, asked.command.request_id) == (b"peer", "acme", request_id(3))


async def test_each_job_gets_an_id_and_a_key_of_its_own(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(enqueue("a", "b"), token=b"submit")
        minted = (await stage.asked()).command.minted
        assert len({one.job_id for one in minted}) == len({one.watch_key for one in minted}) == 2


async def test_without_a_token_nothing_is_applied(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(ListJobs())
        reply = await stage.reply()
        assert isinstance(reply, Refused)
        assert reply.code == "unauthenticated"
        assert stage.nothing_asked()


@pytest.mark.parametrize(
    ("request_", "role"),
    [
        (enqueue("true"), Role.SUBMIT),
        (CancelJob(job_id="j"), Role.SUBMIT),
        (RetryJob(job_id="j"), Role.SUBMIT),
        (dequeue(), Role.WORK),
        (GetJob(job_id="j"), Role.READ),
        (ListQueues(), Role.READ),
        (ListAgents(), Role.READ),
        (ListSecrets(), Role.READ),
        (UpdateQueue(queue="q", mode=QueueMode.PAUSED), Role.ADMIN),
        (SetSecret(queue="q", name="A", box=b"box"), Role.ADMIN),
        (RemoveSecret(queue="q", name="A"), Role.ADMIN),
    ],
)
async def test_without_the_role_a_request_is_forbidden_and_nothing_applied(
    stage: Stage, request_: Request, role: Role
) -> None:
    others = ",".join(other for other in Role if other not in (role, Role.ADMIN))
    async with stage.running():
        stage.router.hear(request_, token=others.encode())
        reply = await stage.reply()
        assert isinstance(reply, Refused)
        assert reply.code == "forbidden"
        assert stage.nothing_asked()
        assert stage.counts["requests_refused"] == 1


async def test_busy_instead_of_growth() -> None:
    stage = Stage(inbox_max=1)
    async with stage.running():
        stage.router.hear(ListJobs(), 1, token=b"read")
        stage.router.hear(ListJobs(), 2, token=b"read")
        _, number, reply = await stage.router.said.receive()
        assert number == request_id(2)
        assert isinstance(reply, Refused)
        assert reply.code == "busy"


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"AR1"],
        [b"XR1", bytes(16), b"", b"\x80"],
        [b"AR1", b"short", b"", b"\x80"],
    ],
)
async def test_garbage_is_counted_and_the_next_request_served(stage: Stage, frames: list[bytes]) -> None:
    async with stage.running():
        stage.router.hear_frames(frames)
        stage.router.hear(Ping())
        assert isinstance(await stage.reply(), Pong)
        assert stage.counts["garbage"] == 1


@pytest.mark.parametrize(
    "frames",
    [
        [b"AR1", bytes(16)],
        [b"AR1", bytes(16), b"", b"\x80", b""],
        [b"AR1", bytes(16), b"x" * 8_193, encode(Ping())],
        [b"AR1", bytes(16), b"", b"\xc1"],
    ],
)
async def test_what_names_its_request_is_refused_by_it(stage: Stage, frames: list[bytes]) -> None:
    async with stage.running():
        stage.router.hear_frames(frames)
        reply = await stage.reply()
        assert isinstance(reply, Refused)
        assert reply.code == "bad-request"


@pytest.mark.parametrize("beyond", BEYOND_BOUNDS)
async def test_what_is_beyond_the_bounds_is_refused_though_nobody_reads_it(stage: Stage, beyond: str) -> None:
    async with stage.running():
        stage.router.hear_frames([b"AR1", bytes(16), b"read", BEYOND_BOUNDS[beyond]])
        reply = await stage.reply()
        assert isinstance(reply, Refused)
        assert reply.code == "bad-request"
        assert stage.nothing_asked()


async def test_who_may_watch_is_told_where(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(WatchJob(job_id="j"), token=b"read")
        stage.answer(await stage.asked(), WatchKeyFound(WatchKey(bytes(32))))
        assert await stage.reply() == JobWatched(watch_key=bytes(32), events_port=EVENTS_PORT)


async def test_who_watches_as_many_as_he_may_is_told_so_and_may_watch_those_again(stage: Stage) -> None:
    async with stage.running():
        for number, key, kind in ((1, b"a", JobWatched), (2, b"b", Refused), (3, b"a", JobWatched)):
            stage.router.hear(WatchJob(job_id="j"), number, token=b"read")
            stage.answer(await stage.asked(), WatchKeyFound(WatchKey(key * 32)))
            reply = await stage.reply()
            assert isinstance(reply, kind)
            assert getattr(reply, "code", "quota") == "quota"


async def test_a_grant_whose_peer_is_gone_is_given_back(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(dequeue(), token=b"work", peer=b"a")
        asked = await stage.asked()
        stage.router.gone.add(b"a")
        stage.answer(asked, GRANT)
        back = await stage.asked()
        assert back.peer is None
        assert back.command.tenant == "acme"
        assert back.command.request == ReleaseJob(lease=_ref("j"))
        assert stage.counts["replies_undelivered"] == 1


async def test_another_tenants_request_of_the_same_id_is_no_repeat(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(dequeue(), token=b"work", peer=b"a")
        asked = await stage.asked()
        stage.router.hear(dequeue(), token=b"work@other", peer=b"b")
        assert (await stage.asked()).command.tenant == "other"
        stage.router.gone.add(b"a")
        stage.answer(asked, GRANT)
        assert isinstance((await stage.asked()).command.request, ReleaseJob)


async def test_a_grant_whose_repeat_is_on_its_way_is_not_given_back(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(dequeue(), token=b"work", peer=b"old")
        first = await stage.asked()
        stage.router.hear(dequeue(), token=b"work", peer=b"new")
        repeat = await stage.asked()
        stage.router.gone.add(b"old")
        stage.answer(first, GRANT)
        stage.answer(repeat, GRANT)
        assert (await stage.router.said.receive())[0] == b"new"
        assert stage.nothing_asked(), "else two agents would run one job"


async def test_a_repeat_whose_peer_is_gone_too_is_given_back(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(dequeue(), token=b"work", peer=b"old")
        first = await stage.asked()
        stage.router.hear(dequeue(), token=b"work", peer=b"new")
        repeat = await stage.asked()
        stage.router.gone |= {b"old", b"new"}
        stage.answer(first, GRANT)
        stage.answer(repeat, GRANT)
        assert isinstance((await stage.asked()).command.request, ReleaseJob)
        await wait_all_tasks_blocked()
        assert stage.nothing_asked()


async def test_another_reply_whose_peer_is_gone_is_let_go(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(enqueue("true"), token=b"submit", peer=b"a")
        asked = await stage.asked()
        assert isinstance(asked.command.request, EnqueueJob)
        stage.router.gone.add(b"a")
        stage.answer(asked, Refused(code="conflict", message=""))
        await wait_all_tasks_blocked()
        assert stage.nothing_asked()


def _heartbeat(*verdicts: Verdict, agent: str = "a") -> tuple[UpdateJob, JobsUpdated]:
    """One of the jobs "j0", "j1" … and what is said to it."""
    refs = tuple(_ref(f"j{n}") for n in range(len(verdicts)))
    said = tuple(LeaseVerdict(job_id=JobId(f"j{n}"), attempt=1, verdict=one) for n, one in enumerate(verdicts))
    return UpdateJob(agent=agent, leases=refs, visibility_ms=60_000), JobsUpdated(leases=said)


async def test_a_nudge_goes_to_the_holder_and_to_nobody_else(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(ListJobs(), token=b"read", peer=b"reader")
        await stage.asked()
        stage.router.hear(dequeue(), token=b"work", peer=b"agent")
        await stage.tell(await stage.asked(), GRANT)
        assert await stage.nudged("j") == [b"agent"]
        assert await stage.nudged("another") == []
        assert stage.nothing_asked(), "nobody answers a nudge"


async def test_a_nudge_goes_to_the_newest_connection_of_the_holder(stage: Stage) -> None:
    heartbeat, said = _heartbeat(Verdict.KEPT, Verdict.CANCEL, Verdict.LOST)
    async with stage.running():
        for peer in (b"old", b"new"):
            stage.router.hear(heartbeat, token=b"work", peer=peer)
            await stage.tell(await stage.asked(), said)
        assert await stage.nudged("j0") == [b"new"]
        assert await stage.nudged("j1") == [b"new"]
        assert await stage.nudged("j2") == [], "a lease that is lost is not this agent's"


async def test_who_holds_several_is_told_once(stage: Stage) -> None:
    heartbeat, said = _heartbeat(Verdict.KEPT, Verdict.KEPT)
    async with stage.running():
        stage.router.hear(heartbeat, token=b"work", peer=b"agent")
        await stage.tell(await stage.asked(), said)
        assert await stage.nudged("j0", "j1", "unknown") == [b"agent"]


async def test_who_has_ended_the_job_is_not_nudged(stage: Stage) -> None:
    ends: list[tuple[Request, Reply]] = [
        (
            CompleteJob(lease=_ref("j0"), event_count=0, result=Result(exit_code=0)),
            JobCompleted(state=JobState.COMPLETED),
        ),
        (ReleaseJob(lease=_ref("j0")), JobReleasedReply()),
    ]
    heartbeat, kept = _heartbeat(Verdict.KEPT)
    async with stage.running():
        for request, reply in ends:
            stage.router.hear(heartbeat, token=b"work")
            await stage.tell(await stage.asked(), kept)
            stage.router.hear(request, token=b"work")
            await stage.tell(await stage.asked(), reply)
            assert await stage.nudged("j0") == []


async def test_a_holder_that_is_gone_is_not_waited_for(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(dequeue(), token=b"work", peer=b"agent")
        await stage.tell(await stage.asked(), GRANT)
        stage.router.gone.add(b"agent")
        assert await stage.nudged("j") == []
        assert stage.counts["replies_undelivered"] == 1
        stage.router.hear(Ping())
        assert isinstance(await stage.reply(), Pong)


async def test_a_retry_gets_one_id_and_key(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(RetryJob(job_id="j"), token=b"submit")
        assert len((await stage.asked()).command.minted) == 1


async def test_agents_are_listed_as_they_were_heard_with_the_leases_that_the_store_counts(stage: Stage) -> None:
    heartbeat, _ = _heartbeat(agent="b")
    async with stage.running():
        stage.router.hear(dequeue(), token=b"work")
        stage.router.hear(heartbeat, token=b"work")
        stage.router.hear(dequeue(), token=b"read")
        assert isinstance(await stage.reply(), Refused)
        for _ in range(2):
            await stage.asked()
        for after, names in ((None, ["a", "b", "c"]), ("a", ["b", "c"]), ("c", [])):
            stage.router.hear(ListAgents(after=after), token=b"read")
            stage.answer(await stage.asked(), LeasesCounted({"a": 2, "c": 1}))
            listed = await stage.reply()
            assert isinstance(listed, AgentsListed)
            assert [one.name for one in listed.agents] == names
            if after is None:
                assert listed.agents[0] == AgentSummary(name="a", slots=1, leases=2, seen_ms=WALL_MS)
                assert listed.agents[2] == AgentSummary(name="c", slots=0, leases=1, seen_ms=0)


async def test_who_may_not_work_is_not_heard_as_an_agent(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(dequeue(), token=b"read")
        await stage.reply()
        stage.router.hear(ListAgents(), token=b"read")
        stage.answer(await stage.asked(), LeasesCounted({}))
        assert await stage.reply() == AgentsListed(agents=())


async def test_a_revoked_machine_is_refused_at_its_very_next_request(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(ListJobs(), token=b"read")
        await stage.asked()
        del stage.listed[b"local"]
        for request in (Ping(), ListJobs()):
            stage.router.hear(request, token=b"read")
            refused = await stage.reply()
            assert isinstance(refused, Refused)
            assert refused.code == "unauthenticated"
        assert stage.nothing_asked()


async def test_a_machine_that_was_revoked_while_it_waited_is_given_no_job(stage: Stage) -> None:
    async with stage.running():
        stage.router.hear(dequeue(wait_ms=30_000), token=b"work")
        parked = await stage.asked()
        del stage.listed[b"local"]
        stage.answer(parked, GRANT)
        assert isinstance(await stage.reply(), Refused)
        given_back = (await stage.asked()).command.request
        assert isinstance(given_back, ReleaseJob)
        assert given_back.lease.job_id == "j"
        assert await stage.nudged("j") == []


async def test_a_machine_that_is_listed_as_a_client_works_no_jobs(stage: Stage) -> None:
    stage.listed[b"local"] = Entry("laptop", frozenset({PeerRole.CLIENT}))
    async with stage.running():
        stage.router.hear(dequeue(), token=b"work,read")
        refused = await stage.reply()
        assert isinstance(refused, Refused)
        assert refused.code == "forbidden"
        stage.router.hear(ListJobs(), token=b"work,read")
        await stage.asked()
