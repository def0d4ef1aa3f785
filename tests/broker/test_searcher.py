"""The Searcher: one search at a time beside the Ledger, in turns by tenant, bounded; what fails is a reply too."""

from __future__ import annotations

from contextlib import closing

import anyio
import pytest
from msgspec.structs import replace

from airunner.broker import prices
from airunner.broker import searcher as module
from airunner.broker.broker import Broker
from airunner.broker.command import TENANT_REQUESTS_A_SECOND
from airunner.broker.counts import Counts
from airunner.broker.inbox import Response
from airunner.broker.lifecycle.commands import LogFound, TenantRequest
from airunner.broker.prices import UNITS_A_REQUEST, price_of_search
from airunner.broker.rates import Rates
from airunner.broker.searcher import TENANT_WAITING_MAX, Searcher, run_here
from airunner.broker.store.open import open_store
from airunner.broker.store.rows import Segment
from airunner.certs.authority import NoVerifier
from airunner.client.client import Client
from airunner.client.reach import Reach
from airunner.protocol.errors import Busy
from airunner.protocol.events import Output, Stream, encode_bodies
from airunner.protocol.job import JobState
from airunner.protocol.names import RequestId
from airunner.protocol.replies import LogSearched, Refused
from airunner.protocol.requests import SearchLog
from airunner.transport.memory import REQUESTS_ENDPOINT
from tests.broker.gatewaystage import Stage as GatewayStage
from tests.broker.stage import Disk, acting
from tests.broker.test_gateway_prices import ASKS, is_empty
from tests.client.wire import Wire, edges

LOG = encode_bodies([Output(timestamp_ms=1, stream=Stream.STDOUT, data=b"one\ntwo\n")])


def found(pattern: str = "", *, events: bytes = LOG, regex: bool = False) -> LogFound:
    segment = Segment(number=1, first_sequence=1, count=1, attempt=1, last_timestamp_ms=1, events=events)
    request = SearchLog(job_id="j", pattern=pattern, regex=regex)
    return LogFound(request, 1, finished=True, segments=(segment,))


class Stage:
    """A Searcher whose thread runs when the test says so, and what it has answered."""

    def __init__(self) -> None:
        self.thread = Disk()
        self.thread.slow = True
        self.answered: list[str] = []
        self.searcher = Searcher(self.thread, lambda response, _: self.answered.append(response.key))

    def search(self, tenant: str, name: str, log: LogFound | None = None) -> None:
        log = log or found()
        command = TenantRequest(tenant=tenant, request_id=RequestId(bytes(16)), request=log.request)
        self.searcher.search(Response(b"peer", command, log, name), log)

    def finish(self) -> None:
        """End the search that is under way; the next one begins."""
        self.thread.let_go()
        self.thread.slow = True


def test_tenants_take_turns_and_one_with_many_searches_is_told_to_wait() -> None:
    stage = Stage()
    for number in range(1 + TENANT_WAITING_MAX):
        stage.search("many", f"m{number}")
    with pytest.raises(Busy):
        stage.search("many", "too many")
    stage.search("few", "f")
    assert (stage.answered, len(stage.thread.waiting)) == ([], 1), "one at a time"
    (work, then) = stage.thread.waiting.pop()
    work()
    then(None)
    assert (stage.answered, len(stage.thread.waiting)) == (["m0"], 1)
    stage.search("many", "room again")
    stage.finish()
    assert stage.answered == ["m0", "m1", "f", "m2", "m3", "m4", "room again"]


def test_what_waits_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES_MAX", len(LOG))
    stage = Stage()
    for tenant in ("runs", "waits", "waits too"):
        stage.search(tenant, tenant)
    with pytest.raises(Busy):
        stage.search("another", "another")
    stage.finish()
    stage.search("another", "another")
    stage.finish()
    assert stage.answered == ["runs", "waits", "waits too", "another"]


@pytest.mark.parametrize(
    ("log", "code"),
    [
        (found("(", regex=True), "bad-pattern"),
        (found("[^a]{1000}[^b]{1000}", regex=True), "bad-pattern"),
        (found(events=b"\xc1"), "corrupt-log"),
    ],
)
async def test_a_search_that_fails_is_refused(log: LogFound, code: str) -> None:
    stage = GatewayStage()
    async with stage.running():
        reply = await stage.converse(log.request, log, token=b"read")
        assert isinstance(reply, Refused)
        assert reply.code == code


async def test_a_part_of_a_log_becomes_its_hits_and_is_paid_for_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Rates(10.0 * UNITS_A_REQUEST)
    stage = GatewayStage(rates=rates)
    async with stage.running():
        for bytes_a_unit, paid_out in ((len(LOG), False), (1, True)):
            monkeypatch.setattr(prices, "SEARCHED_BYTES_A_UNIT", bytes_a_unit)
            reply = await stage.converse(SearchLog(job_id="j", pattern="two"), found("two"), token=b"read")
            assert isinstance(reply, LogSearched)
            assert [(hit.line, hit.text) for hit in reply.hits] == [(2, "two")]
            assert is_empty(rates, ASKS) is paid_out


def test_a_search_of_a_gigabyte_a_second_costs_an_eighth_of_the_default_quota_beside_the_reading() -> None:
    assert 0 < price_of_search(10**9) <= TENANT_REQUESTS_A_SECOND * UNITS_A_REQUEST / 8


async def test_a_gateway_whose_searcher_is_full_says_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TENANT_WAITING_MAX", 0)
    stage = GatewayStage()
    async with stage.running():
        assert (await stage.converse(SearchLog(job_id="j"), found(), token=b"read")).code == "busy"


def test_without_a_thread_a_search_runs_at_once() -> None:
    answered: list[Response] = []
    searcher, log = Searcher(run_here, lambda response, _: answered.append(response)), found("one")
    command = TenantRequest(tenant="t", request_id=RequestId(bytes(16)), request=log.request)
    searcher.search(Response(b"peer", command, log), log)
    (response,) = answered
    assert [hit.text for hit in response.reply.hits] == ["one"]


async def test_while_a_search_takes_long_other_requests_are_answered() -> None:
    wire, here, thread = Wire(), edges(), Disk()
    thread.hold()
    found: list[LogSearched] = []
    with closing(open_store("memory:")) as store:
        broker = Broker(store, wire, wire, NoVerifier(), here, Disk(), Counts(), searches=thread)
        reach = Reach(network=wire, endpoints=(REQUESTS_ENDPOINT,), token=lambda: b"", edges=here, close=lambda: None)
        async with acting(broker.run), Client(reach=reach) as client, anyio.create_task_group() as group:
            job = await client.submit(command="true")

            async def search() -> None:
                found.append(await client.search_page(job, "(a+)+$", regex=True))

            group.start_soon(search)
            await thread.committing.wait()
            assert (await client.get(job)).id == job.id
            assert await client.cancel(job) is JobState.CANCELLED
            assert [listed.id async for listed in client.list()] == [job.id]
            assert found == []
            thread.let_go()
    assert [page.lines for page in found] == [0]


async def test_a_search_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEARCH_S", 0.0)
    stage, log = GatewayStage(), replace(found(), last_sequence=2)
    events = encode_bodies([Output(timestamp_ms=1, stream=Stream.STDOUT, data=b"line\n")] * 2)
    log = replace(log, segments=(replace(log.segments[0], count=2, events=events),))
    async with stage.running():
        page = await stage.converse(log.request, log, token=b"read")
        assert (page.lines, page.place.sequence) == (1, 2)
