"""The Gateway lets in what may come in, refuses the rest, has everything paid for, and loses no grant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker import tarpit
from airunner.broker.admission import Admission, any_machine
from airunner.broker.changefeed import KEY_MS, ChangeFeed
from airunner.broker.counts import Counts
from airunner.broker.gateway import DELAY_MS_MAX, NUDGE_ID, Gateway
from airunner.broker.health import Health
from airunner.broker.inbox import Nudged, Pending, Response
from airunner.broker.lifecycle.commands import Expire, LeasesCounted, Retain, StoreReply, StreamsFound, WatchKeyFound
from airunner.broker.prices import REPLY_BYTES_A_UNIT, UNITS_A_REQUEST
from airunner.broker.rates import Bucket, Purpose, Rates
from airunner.broker.store.quotas import Quotas
from airunner.broker.watchers import Watchers
from airunner.certs.allowlist import Entry, PeerRole
from airunner.protocol import replies, requests
from airunner.protocol.coding import encode
from airunner.protocol.events import EventSegment
from airunner.protocol.frames import SERVED, pack_request
from airunner.protocol.job import JobState, Result
from airunner.protocol.names import JobId, WatchKey
from airunner.protocol.replies import AgentSummary, LeaseRef, Message, Refused, Reply, Verdict
from airunner.protocol.requests import ListJobs, Ping
from airunner.transport.memory import MemoryPublisher
from tests.broker.stage import (
    LEASE,
    WALL_MS,
    FakeAuthority,
    FakeRouter,
    ToLedger,
    acting,
    dequeue,
    edges,
    enqueue,
    request_id,
)
from tests.broker.test_admission import ASKS, is_empty
from tests.protocol.examples import BEYOND_BOUNDS

EVENTS_PORT = 7071
GRANT = replies.JobsLeased(leases=(LEASE,))
PONG = replies.Pong(revisions=SERVED)


class Stage:
    """A Gateway between a door in memory and an inbox that nobody empties."""

    def __init__(self, inbox_max: int = 100, rates: Rates | None = None, unattributed: Rates | None = None) -> None:
        self.router = FakeRouter()
        self.counts, self.health = Counts(), Health()
        self.listed: dict[bytes, Entry] = {b"local": Entry("machine", frozenset(PeerRole)), b"": any_machine(b"")}
        self.admission = Admission(FakeAuthority(), self.listed.get, rates or Rates(), unattributed or Rates())
        self.to_ledger = ToLedger[Pending | Expire | Retain](inbox_max)
        self.ledger = self.to_ledger.received
        self.answers, self.inbox = anyio.create_memory_object_stream[Sequence[Response | Nudged]](100)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        gateway = Gateway(
            self.router,
            self.to_ledger,
            self.admission,
            Quotas(),
            edges(),
            EVENTS_PORT,
            self.counts,
            watchers := Watchers(1),
            self.health,
            ChangeFeed(MemoryPublisher(), edges(), self.counts, watchers),
        )

        async def told() -> None:
            async for responses in self.inbox:
                gateway.send(responses)

        async with acting(gateway.run), acting(told):
            yield
        self.router.close()
        for stream in (self.to_ledger, self.answers, self.inbox):
            stream.close()

    async def reply(self) -> Reply:
        return (await self.router.said.receive())[2]

    async def code(self) -> str:
        """Of the refusal that comes next."""
        return (await self.reply()).code

    async def asked(self) -> Pending:
        return await self.ledger.receive()

    def answer(self, asked: Pending, reply: StoreReply) -> None:
        self.answers.send_nowait([Response(asked.peer, asked.command, reply, asked.key, asked.revision)])

    async def converse(self, request: Message, reply: StoreReply, *, peer: bytes = b"peer", token: bytes) -> Reply:
        """Ask, answer, and see it go out."""
        self.router.hear(request, token=token, peer=peer)
        self.answer(await self.asked(), reply)
        return await self.reply()

    async def nudged(self, *job_ids: str) -> list[bytes]:
        """Who is told when the holders of these jobs are."""
        self.answers.send_nowait([Nudged("acme", tuple(map(JobId, job_ids)))])
        await wait_all_tasks_blocked()
        told: list[bytes] = []
        while self.router.said.statistics().current_buffer_used:
            peer, number, message = await self.router.said.receive()
            assert (number, message) == (NUDGE_ID, replies.Nudge())
            told.append(peer)
        return told

    def nothing_asked(self) -> bool:
        return self.ledger.statistics().current_buffer_used == 0


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
        assert back.command.request == requests.ReleaseJob(lease=_ref("j"))
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


@pytest.mark.parametrize(
    ("asks", "size_bytes", "rate", "paid_out"),
    [(1, 40 * REPLY_BYTES_A_UNIT, 10.0, True), (2, REPLY_BYTES_A_UNIT, 3.0 * UNITS_A_REQUEST, False)],
    ids=["large", "as short as who follows asks for"],
)
async def test_a_page_of_a_log_is_paid_for_by_its_size(
    asks: int, size_bytes: int, rate: float, *, paid_out: bool
) -> None:
    rates = Rates(rate)
    stage = Stage(rates=rates)
    run = EventSegment(first_sequence=1, count=1, attempt=1, events=bytes(size_bytes))
    page = replies.JobEventsReplayed(runs=(run,), next_sequence=2, last_sequence=1, finished=False)
    async with stage.running():
        for _ in range(asks):
            await stage.converse(requests.ReplayJobEvents(job_id="j"), page, token=b"read")
        assert is_empty(rates, ASKS) is paid_out


def exhausted(units: float) -> Rates:
    rates = Rates(1.0)
    rates.charge(ASKS, units, WALL_MS)
    return rates


@pytest.mark.parametrize(
    ("debt", "held_s", "retry_ms"), [(2.0, 1.0, 0), (10.0, DELAY_MS_MAX / 1_000, 9_001 - DELAY_MS_MAX)]
)
async def test_what_is_too_much_is_refused_undecoded_once_the_same_may_be_asked_again_and_not_held_for_ever(
    debt: float, held_s: float, retry_ms: int
) -> None:
    stage = Stage(rates=exhausted(debt))
    async with stage.running():
        began_s = anyio.current_time()
        stage.router.hear_frames([b"AR1", bytes(16), b"read", b"\x81\xa4type" + bytes(100)])
        stage.router.hear(Ping())
        assert await stage.reply() == PONG
        assert anyio.current_time() == began_s
        refused = await stage.reply()
        assert (refused.code, refused.retry_ms) == ("quota", retry_ms)
        assert anyio.current_time() - began_s == pytest.approx(held_s, abs=0.01)  # virtual


async def test_more_refusals_than_are_held_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(rates=exhausted(2.0))
    monkeypatch.setattr(tarpit, "DELAYED_MAX", 1)
    async with stage.running():
        began_s = anyio.current_time()
        for number in (1, 2):
            stage.router.hear(ListJobs(page_size=100), number, token=b"read")
        assert [(await stage.router.said.receive())[1] for _ in range(2)] == [request_id(2), request_id(1)]
        assert anyio.current_time() > began_s


async def test_what_turns_out_to_be_no_request_is_paid_for_as_the_largest_of_its_size() -> None:
    rates = Rates(100.0)
    stage = Stage(rates=rates)
    async with stage.running():
        stage.router.hear_frames([b"AR1", bytes(16), b"read", b"\x81\xa1x\xdd\x00\x00\x7f\xff" + bytes(32_766)])
        assert await stage.code() == "bad-request"
        assert is_empty(rates, ASKS)


@pytest.mark.parametrize(
    "frames", [[b"AR1", bytes(16)], [b"AR1", bytes(16), b"", encode(Ping())], [b"AR1", bytes(16), b"", b"\x80"]]
)
async def test_what_is_no_tenants_is_paid_for_by_its_machine(frames: list[bytes]) -> None:
    unattributed = Rates(1.0)
    unattributed.charge(Bucket("local", Purpose.MACHINE), 0.5, WALL_MS)
    stage = Stage(unattributed=unattributed)
    async with stage.running():
        stage.router.hear_frames(frames)
        first = await stage.reply()
        assert not isinstance(first, Refused) or first.code == "bad-request"
        stage.router.hear_frames(frames)
        assert await stage.code() == "quota"
