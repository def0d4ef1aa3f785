"""How output is read: all that has come at once, however little each read gives."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest

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
