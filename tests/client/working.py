"""An agent of a few lines: leases one job, publishes what a test says, completes. It speaks through a Channel."""

from __future__ import annotations

from airunner.broker.blobs.address import open_blobs
from airunner.broker.blobs.keeper import Blobs
from airunner.client.client import Client
from airunner.protocol.blobs import Slice, blob_id, packed
from airunner.protocol.events import AgentBody, Artifact, Output, ProcessEnd, ProcessStart, Stream, encode_bodies
from airunner.protocol.job import Result
from airunner.protocol.musts import MUST_KNOW
from airunner.protocol.replies import JobLease
from airunner.protocol.requests import CompleteJob, DequeueJob, EventBatch, HaveBlobs, PublishJobEvents, PutBlob
from airunner.transport.channel import Channel
from tests.broker.stage import Disk


def blobs_in_memory() -> Blobs:
    """A blob store for a broker."""
    return Blobs(open_blobs("memory:"), [Disk()])


class Worker:
    """One attempt at the next job of the queue."""

    def __init__(self, channel: Channel, lease: JobLease) -> None:
        self._channel = channel
        self._lease = lease
        self._index = 0

    @classmethod
    async def lease(cls, client: Client, seed: bytes = bytes(32)) -> Worker:
        channel = client._entered.channel
        reply = await channel.ask(
            DequeueJob(
                agent="worker",
                queues=("default",),
                visibility_ms=300_000,
                wait_ms=30_000,
                token_seed=seed,
                knows=MUST_KNOW,
            )
        )
        return cls(channel, reply.leases[0])

    async def publish(self, *bodies: AgentBody) -> None:
        batch = EventBatch(
            lease=self._lease.ref, first_index=self._index, count=len(bodies), events=encode_bodies(list(bodies))
        )
        self._index += len(bodies)
        await self._channel.ask(PublishJobEvents(batches=(batch,)))

    async def print(self, text: bytes) -> None:
        await self.publish(Output(timestamp_ms=0, stream=Stream.STDOUT, data=text))

    async def put(self, *pieces: bytes) -> None:
        """Store pieces as blobs."""
        blobs = [packed(piece) for piece in pieces]
        await self._channel.ask(HaveBlobs(lease=self._lease.ref, ids=tuple(blob.id for blob in blobs)))
        for blob in blobs:
            await self._channel.ask(PutBlob(blobs=(blob,)))

    async def leave(self, **contents: bytes) -> None:
        """Leave files with names and contents, all of them in one piece, as a small job does."""
        files = {name.replace("__", "/").replace("_", "."): content for name, content in contents.items()}
        piece, at = b"".join(files.values()), 0
        if piece:
            await self.put(piece)
        for path, content in files.items():
            slices = (Slice(blob_id(piece), at, len(content)),) if content else ()
            at += len(content)
            await self.publish(Artifact(timestamp_ms=0, path=path, size_bytes=len(content), slices=slices))

    async def complete(self, exit_code: int = 0) -> None:
        await self._channel.ask(
            CompleteJob(lease=self._lease.ref, event_count=self._index, result=Result(exit_code=exit_code))
        )

    async def run(self, lines: int, exit_code: int = 0) -> None:
        await self.publish(ProcessStart(timestamp_ms=0, pid=1, started_at=0))
        for line in range(lines):
            await self.print(b"%d\n" % line)
        await self.publish(ProcessEnd(timestamp_ms=0, pid=1, exit_code=exit_code))
        await self.complete(exit_code)
