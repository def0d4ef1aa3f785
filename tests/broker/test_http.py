"""/health and /metrics over a real loopback socket, whatever is said to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import anyio
import pytest

from airunner.broker.counts import Counts
from airunner.broker.fairqueue import FairQueue
from airunner.broker.health import Health
from airunner.broker.http import broker_pages
from airunner.broker.inbox import BetweenBatches
from airunner.broker.metrics import BrokerMetrics
from airunner.broker.roster import Roster
from airunner.protocol.errors import OperatorError
from airunner.transport.http import CONNECTIONS_MAX, HEAD_BYTES_MAX, HttpServer, open_http, prefers_json
from tests.conformance.memory import MemoryEngine
from tests.virtualtime import real_time  # noqa: F401 - a fixture

TIMEOUT_S = 10


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def door(health: Health) -> AsyncIterator[HttpServer]:
    counts = Counts()
    counts.add("commits", 3)
    ledger = FairQueue()
    metrics = BrokerMetrics(counts, ledger, MemoryEngine(), Roster(), lambda: 0, ["home"])
    door = await open_http("127.0.0.1:0")

    def work() -> None:
        entry = ledger.receive_nowait()
        assert isinstance(entry, BetweenBatches)
        entry.work()
        entry.done.set()

    with anyio.fail_after(TIMEOUT_S), ledger.received_by(work):
        async with anyio.create_task_group() as group:
            group.start_soon(door.run, broker_pages(health, metrics))
            yield door
            group.cancel_scope.cancel()


async def say(door: HttpServer, request: bytes) -> bytes:
    """Everything that comes back until the door closes."""
    host, _, port = door.address.rpartition(":")
    heard = b""
    async with await anyio.connect_tcp(host, int(port)) as stream:
        await stream.send(request)
        with suppress(anyio.EndOfStream):
            while True:
                heard += await stream.receive()
    return heard


async def look(door: HttpServer, headers: bytes = b"") -> tuple[bytes, bytes]:
    """The head and the body of /health."""
    head, _, body = (await say(door, b"GET /health HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")).partition(b"\r\n\r\n")
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head
    return head, body


async def test_health_is_said_in_words_or_json_to_whoever_asks(door: HttpServer, health: Health) -> None:
    wants_json = b"accept: application/json\r\n"
    head, body = await look(door)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"ok\n"
    head, body = await look(door, wants_json)
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert body == b'{"status":"ok","live":true,"ready":true}'
    health.degrade("disk", "it is full")
    health.degrade("agents", "build-7 cannot start processes")
    head, body = await look(door, b"Accept: */*\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"degraded\nagents: build-7 cannot start processes\ndisk: it is full\n"
    health.clear("agents")
    conditions = {"disk": "it is full"}
    shown = {"status": "degraded", "live": True, "ready": True, "conditions": conditions}
    assert json.loads((await look(door, wants_json))[1]) == shown
    health.clear("disk")
    assert (await look(door))[1] == b"ok\n"
    health.fail("stall", "the disk does not answer")
    for accept in (b"", wants_json):
        head, body = await look(door, accept)
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"), "only a broker that can answer nothing"
        assert b"unavailable" in body


async def test_probes_see_a_broker_live_whose_store_is_away_but_not_ready(door: HttpServer, health: Health) -> None:
    async def probe(page: bytes) -> bytes:
        return (await say(door, b"GET /health/" + page + b" HTTP/1.1\r\n\r\n")).partition(b"\r\n")[0]

    ready, not_ready = b"HTTP/1.1 200 OK", b"HTTP/1.1 503 Service Unavailable"
    assert [await probe(page) for page in (b"live", b"ready")] == [ready, ready]
    health.degrade("disk", "it is full")
    assert [await probe(page) for page in (b"live", b"ready")] == [ready, ready]
    health.fail("away", "the store is away")
    assert [await probe(page) for page in (b"live", b"ready")] == [ready, not_ready]
    assert b'"live":true,"ready":false' in (await look(door, b"accept: application/json\r\n"))[1]
    health.clear("away")
    assert await probe(b"ready") == ready


@pytest.mark.parametrize(
    ("accept", "json_preferred"),
    [
        ("", False),
        ("*/*", False),  # curl
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),  # a browser
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/json, text/plain, */*", True),  # axios
        ("application/json;q=0.5, */*;q=0.1", True),
        ("text/plain, application/json;q=0.9", False),
        ("text/*;q=0.2, application/*;q=0.3", True),
        ("application/json;q=0", False),
        ("application/json;q=none", False),
    ],
)
def test_json_is_preferred_by_who_names_it(accept: str, *, json_preferred: bool) -> None:
    assert prefers_json(accept) is json_preferred


@pytest.mark.parametrize(
    ("request_", "status", "end"),
    [
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", b"200", b"\nairunner_commits_total 3.0\n"),
        (b"HEAD /health HTTP/1.1\r\n\r\n", b"200", b"\r\n\r\n"),
        (b"GET /other HTTP/1.1\r\n\r\n", b"404", b"\n"),
        (b"POST /health HTTP/1.1\r\n\r\n", b"400", b"\n"),
        (b"GET /health SPDY/9\r\n\r\n", b"400", b"\n"),
        (b"\x00\xff\r\n\r\n", b"400", b"\n"),
        (b"x" * HEAD_BYTES_MAX, b"400", b"\n"),
    ],
    ids=["metrics", "a head alone", "another path", "another method", "no HTTP", "no text", "too long a head"],
)
async def test_what_is_served_is_and_what_is_not_is_told_so(
    door: HttpServer, request_: bytes, status: bytes, end: bytes
) -> None:
    response = await say(door, request_)
    assert response.startswith(b"HTTP/1.1 " + status)
    assert end in response if b"metrics" in request_ else response.endswith(end)


async def test_a_taken_address_is_an_error_of_one_line(door: HttpServer) -> None:
    with pytest.raises(OperatorError, match="cannot serve HTTP on") as raised:
        await open_http(door.address)
    assert raised.value.exit_code == 69


@pytest.mark.parametrize("address", ["", "8080", ":8080", "host:", "host:http", "host:70000"])
async def test_an_address_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(OperatorError, match="is not an address"):
        await open_http(address)


async def test_whoever_holds_many_connections_and_leaves_in_the_middle_shuts_nobody_out_for_good(
    door: HttpServer,
) -> None:
    host, _, port = door.address.rpartition(":")
    async with AsyncExitStack() as held:
        for _ in range(CONNECTIONS_MAX):
            stream = await held.enter_async_context(await anyio.connect_tcp(host, int(port)))
            await stream.send(b"GET /hea")
        async with await anyio.connect_tcp(host, int(port)) as one_more:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await one_more.receive()
    heard = b""
    while b"200 OK" not in heard:  # until the door has seen that they are gone
        with suppress(anyio.BrokenResourceError):
            heard = await say(door, b"GET /health HTTP/1.1\r\n\r\n")
