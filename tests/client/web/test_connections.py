"""Deadlines of connections: a client that does nothing holds none for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from airunner.client.web.connections import HEAD_S, STALL_S, Connection

HEAD = b"POST /jobs HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\n"


class Timer:
    def __init__(self, delay_s: float, call: Callable[[], None]) -> None:
        self.delay_s = delay_s
        self.call = call
        self.is_live = True

    def cancel(self) -> None:
        self.is_live = False


class Loop:
    """An event loop that only notes what is to be done."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(delay_s, call))
        return self.timers[-1]

    def create_task(self, coroutine: Any) -> Any:
        coroutine.close()  # the application has no turn
        return self

    def add_done_callback(self, _: Any) -> None: ...

    def live(self, delay_s: float) -> list[Timer]:
        return [timer for timer in self.timers if timer.is_live and timer.delay_s == delay_s]


class Transport:
    """A transport whose client reads nothing."""

    def __init__(self) -> None:
        self.written = b""
        self.is_aborted = self.is_closed = False

    def write(self, content: bytes) -> None:
        self.written += content

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        self.is_closed = True

    def get_extra_info(self, _: str) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def connection(loop: Loop, transport: Transport) -> Connection:
    def app(*_: Any) -> Any:
        return NotImplemented

    config = uvicorn.Config(app, http=Connection, ws="none", lifespan="off", log_config=None, timeout_keep_alive=30)
    made = Connection(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    made.connection_made(transport)
    return made


async def answer(connection: Connection, body: bytes = b"") -> None:
    await connection.cycle.send({"type": "http.response.start", "status": 200, "headers": []})
    await connection.cycle.send({"type": "http.response.body", "body": body, "more_body": False})


def test_a_head_that_does_not_come_whole_ends_the_connection_however_often_a_byte_comes(
    connection: Connection, loop: Loop, transport: Transport
) -> None:
    (deadline,) = loop.live(HEAD_S)
    for byte in HEAD[:-1]:
        connection.data_received(bytes((byte,)))
    assert loop.live(HEAD_S) == [deadline]
    deadline.call()
    assert transport.is_aborted


async def test_a_whole_head_has_no_deadline_and_the_next_one_has_its_own(connection: Connection, loop: Loop) -> None:
    connection.data_received(HEAD)
    assert not loop.live(HEAD_S)
    connection.data_received(b"12345")
    await answer(connection)
    assert not loop.live(HEAD_S)
    assert len(loop.live(30)) == 1
    connection.data_received(HEAD[:1])  # which ends uvicorn's deadline for an idle connection
    assert not loop.live(30)
    assert len(loop.live(HEAD_S)) == 1


async def test_a_body_that_was_answered_already_does_not_go_on_for_ever(connection: Connection, loop: Loop) -> None:
    connection.data_received(HEAD)
    await answer(connection)  # as for a body that is too large
    connection.data_received(b"1")
    (deadline,) = loop.live(HEAD_S)
    connection.data_received(b"2")
    assert loop.live(HEAD_S) == [deadline]


async def test_a_client_that_does_not_read_is_disconnected(
    connection: Connection, loop: Loop, transport: Transport
) -> None:
    connection.data_received(HEAD + b"12345")
    connection.pause_writing()
    (deadline,) = loop.live(STALL_S)
    connection.resume_writing()
    assert not deadline.is_live
    await answer(connection, b"all")  # small, and the connection is about to be closed: nothing pauses
    (deadline,) = loop.live(STALL_S)
    connection.pause_writing()
    assert loop.live(STALL_S) == [deadline]
    deadline.call()
    assert transport.is_aborted


async def test_a_client_that_has_read_all_is_not(connection: Connection, loop: Loop, transport: Transport) -> None:
    connection.data_received(HEAD + b"12345")
    await answer(connection, b"all")
    (deadline,) = loop.live(STALL_S)
    transport.written = b""
    deadline.call()
    assert not transport.is_aborted


def test_a_lost_connection_has_no_deadlines(connection: Connection, loop: Loop) -> None:
    connection.pause_writing()
    connection.connection_lost(None)
    assert not loop.live(HEAD_S)
    assert not loop.live(STALL_S)
