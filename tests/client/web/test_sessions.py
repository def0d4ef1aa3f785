"""Streams end with their session, with their token, and with the server; a pool of clients is bounded. Virtual time."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus
from starlette.responses import StreamingResponse

from airunner.client.reach import Reach
from airunner.client.web.clients import ANSWER_S, BrokerAway, Clients
from airunner.client.web.endedsessions import EndedSessions
from airunner.client.web.live import Live
from airunner.client.web.login import By, Login
from airunner.client.web.sessions import STREAMS_MAX, Over, Session, Sessions
from airunner.protocol.errors import Busy, ClientNotOpen, OperatorError
from airunner.transport.memory import REQUESTS_ENDPOINT
from tests.client.wire import Wire, edges
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture

SESSION = Session("tab", 3_600.0)
OTHER = Session("other", 3_600.0)


def login(session: Session) -> Login:
    return Login("a.b.c", "ada", "default", frozenset(), By.COOKIE, session)


class Reader:
    """A browser that reads one stream."""

    def __init__(self, sessions: Sessions, session: Session, kind: str = "text/event-stream") -> None:
        self._services: Any = SimpleNamespace(sessions=sessions)
        self._login = login(session)
        self._kind = kind
        self.body = b""
        self.whole = False

    async def read(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield b"id: 1\n\n"
            task_status.started()
            await anyio.sleep_forever()

        async def receive() -> Any:
            await anyio.sleep_forever()

        async def send(message: Any) -> None:
            self.body += message.get("body", b"")
            self.whole |= message["type"] == "http.response.body" and not message.get("more_body", False)

        streaming = StreamingResponse(endless(), media_type=self._kind)
        await Live(self._services, self._login, streaming)({"type": "http", "asgi": {}}, receive, send)


@pytest.fixture
async def sessions(tmp_path: Path) -> Sessions:
    began_s = anyio.current_time()
    return Sessions(lambda: anyio.current_time() - began_s, EndedSessions(tmp_path))


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (lambda sessions: sessions.end(SESSION), Over.LOGGED_OUT),
        (lambda sessions: sessions.stop(), Over.STOPPING),
        (lambda _: None, Over.EXPIRED),
    ],
    ids=str,
)
async def test_every_stream_of_a_session_ends_with_it_and_says_why(
    sessions: Sessions, end: Callable[[Sessions], None], why: Over
) -> None:
    tabs = [Reader(sessions, SESSION), Reader(sessions, SESSION)]
    with anyio.fail_after(SESSION.expires_s + 1 if why is Over.EXPIRED else 1):
        async with anyio.create_task_group() as group:
            for tab in tabs:
                await group.start(tab.read)
            end(sessions)
    for tab in tabs:
        assert tab.whole
        assert tab.body == b"id: 1\n\n" + f"event: over\ndata: {why}\n\n".encode()


async def test_a_stream_that_can_say_no_farewell_is_cut_off(sessions: Sessions) -> None:
    reader = Reader(sessions, SESSION, "application/x-ndjson")
    async with anyio.create_task_group() as group:
        await group.start(reader.read)
        sessions.end(SESSION)
    assert (reader.body, reader.whole) == (b"id: 1\n\n", False)


async def test_streams_of_another_session_go_on(sessions: Sessions) -> None:
    other = Reader(sessions, OTHER)
    async with anyio.create_task_group() as group:
        await group.start(other.read)
        sessions.end(SESSION)
        assert (sessions.has_ended(SESSION), sessions.has_ended(OTHER)) == (True, False)
        await anyio.wait_all_tasks_blocked()
        assert not other.whole
        group.cancel_scope.cancel()


async def test_a_session_has_a_bounded_number_of_streams(sessions: Sessions) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(STREAMS_MAX):
            await group.start(Reader(sessions, SESSION).read)
        with pytest.raises(Busy, match="close some"):
            async with sessions.stream(SESSION):
                pass
        await group.start(Reader(sessions, OTHER).read)
        group.cancel_scope.cancel()
    async with sessions.stream(SESSION):
        pass  # those have left


def test_an_ended_session_is_known_to_every_server_of_the_home_and_to_later_ones(tmp_path: Path) -> None:
    servers = [Sessions(lambda: 0.0, EndedSessions(tmp_path)) for _ in range(2)]
    servers[0].end(SESSION)
    servers.append(Sessions(lambda: 0.0, EndedSessions(tmp_path)))
    assert [server.has_ended(SESSION) for server in servers] == [True] * 3
    assert [server.has_ended(OTHER) for server in servers] == [False] * 3


def test_ended_sessions_are_forgotten_with_their_tokens_and_beyond_a_bound(tmp_path: Path) -> None:
    ended = EndedSessions(tmp_path, ended_max=3)
    ended.add("long", math.inf, 0)
    for number in range(9):
        ended.add(str(number), 100.0 + number, float(number))
    assert [name for name in ("long", *map(str, range(9))) if name in ended] == ["long", "7", "8"]
    ended.add("last", 200.0, 107.5)
    assert [name for name in ("long", "7", "8", "last") if name in ended] == ["long", "8", "last"]


def test_a_session_whose_end_cannot_be_written_is_said_not_to_be_remembered(tmp_path: Path) -> None:
    sessions = Sessions(lambda: 0.0, EndedSessions(tmp_path))
    (tmp_path / "ended").rmdir()
    with pytest.raises(OperatorError, match="the end of this session cannot be written: No such file"):
        sessions.end(SESSION)


def pool(**bounds: int) -> Clients:
    """Clients of no broker, for tokens that come from cookies."""
    access = Reach(network=Wire(), endpoints=(REQUESTS_ENDPOINT,), token=lambda: b"", edges=edges())
    clients = Clients(access, lambda _: None, **bounds)
    for token in "abc":
        clients.vouch(token)
    return clients


async def test_a_request_gives_up_on_a_broker_that_is_away_and_a_stream_does_not() -> None:
    async with pool() as clients:
        began_s = anyio.current_time()
        with pytest.raises(BrokerAway):
            async with clients.asking("a") as client:
                await client.list_page()
        assert anyio.current_time() - began_s == pytest.approx(ANSWER_S)
        with anyio.move_on_after(3_600) as scope:
            async with clients.of("a") as client:
                await client.list_page()
        assert scope.cancelled_caught


async def test_a_pool_keeps_clients_and_closes_the_idle_one_that_was_used_least_recently() -> None:
    async with pool(clients_max=2) as clients:
        async with clients.of("a") as first, clients.of("a") as same, clients.of("b") as second:
            assert first is same
            with pytest.raises(Busy, match="2 tokens at once"):
                async with clients.of("c"):
                    pass
        async with clients.of("a") as again:
            assert again is first
        async with clients.of("c"):
            assert list(clients._open) == ["a", "c"]
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(ClientNotOpen):
                await second.list_page()
        async with clients.of("b") as opened:
            assert opened is not second


async def test_a_client_that_a_broker_has_refused_is_used_no_more() -> None:
    async with pool() as clients:
        with pytest.raises(OperatorError):
            async with clients.of("a") as refused:
                raise OperatorError("the broker refuses this key")
        async with clients.of("a") as client:
            assert client is not refused
