"""Standard input of a leased job: reads it from the broker, in pieces as large as the link carries."""

from __future__ import annotations

from airunner.protocol.errors import CorruptLog
from airunner.protocol.replies import JobLease
from airunner.protocol.requests import ReadJobStdin
from airunner.transport.channel import Channel


async def read_stdin(channel: Channel, lease: JobLease) -> bytes:
    """Read the whole standard input of a job; b"": the job has none. Raises `PeerError`."""
    found = bytearray()

    def rest() -> ReadJobStdin:
        return ReadJobStdin(lease=lease.ref, offset=len(found), bytes_max=channel.request_size.bytes_max)

    while len(found) < (lease.spec.stdin_bytes or 0):
        piece = await channel.ask(rest(), smaller=rest)
        if not piece.data:
            raise CorruptLog
        found += piece.data
    return bytes(found)
