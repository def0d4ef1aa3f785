"""How output is read: all that has come at once, however little each read gives."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator

import anyio
import pytest

from airunner.agent.launcher import streams
from airunner.agent.launcher.contract import RECEIVE_BYTES
from airunner.agent.launcher.streams import DescriptorSource

TERMINAL_BYTES = 4_095  # that a terminal gives to one read


@pytest.fixture
async def packets() -> AsyncIterator[tuple[socket.socket, DescriptorSource]]:
    """A writer of packets, of which a read gives one as a terminal does, and their source."""
    writer, reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    source = DescriptorSource(reader.detach())
    with writer:
        yield writer, source
    source.close()


async def test_what_a_terminal_gives_in_many_reads_is_received_at_once(
    packets: tuple[socket.socket, DescriptorSource],
) -> None:
    writer, source = packets
    pieces = [bytes([number]) * TERMINAL_BYTES for number in range(RECEIVE_BYTES // TERMINAL_BYTES)]
    for piece in pieces:
        writer.send(piece)
    assert await source.receive() == b"".join(pieces)


async def test_no_more_is_received_than_was_asked_for(packets: tuple[socket.socket, DescriptorSource]) -> None:
    writer, source = packets
    writer.send(b"1" * 10)
    writer.send(b"2" * 10)
    writer.send(b"3" * 10)
    assert await source.receive(20) == b"1" * 10 + b"2" * 10
    assert await source.receive(20) == b"3" * 10


async def test_the_end_comes_after_all_that_was_written(packets: tuple[socket.socket, DescriptorSource]) -> None:
    writer, source = packets
    writer.send(b"last words")
    writer.close()
    assert [await source.receive() for _ in range(3)] == [b"last words", b"", b""]


async def test_a_source_that_has_read_all_waits_before_it_reads_again(
    packets: tuple[socket.socket, DescriptorSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, source = packets
    reads: list[int] = []
    read = os.read
    monkeypatch.setattr(streams.os, "read", lambda *which: reads.append(1) or read(*which))
    for number in range(10):
        writer.send(b"a line")
        assert await source.receive() == b"a line"
        assert len(reads) == 2 * number + 2, "one that gives the line, and one that gives nothing"


async def test_a_source_that_always_has_more_lets_other_tasks_run(
    packets: tuple[socket.socket, DescriptorSource],
) -> None:
    writer, source = packets
    turns: list[str] = []

    async def receive(name: str) -> None:
        for _ in range(3):
            await source.receive(1)
            turns.append(name)

    for _ in range(6):
        writer.send(b"1")
    async with anyio.create_task_group() as group:
        group.start_soon(receive, "one")
        group.start_soon(receive, "other")
    assert turns == ["one", "other"] * 3
