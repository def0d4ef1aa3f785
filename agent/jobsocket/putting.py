"""Putting of files: a process of the job sends them, and they are kept as artifacts while the job runs.

They are stored in batches of a bounded size, each before the next is read, so that a process which sends too fast
waits. A file is recorded once all of it is stored; one that is not sent to its end leaves nothing. Nothing of the agent
is held while a process is waited for: not the turns in which all attempts upload.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from msgspec import Struct

from airunner.agent.artifacts.collecting import FILES_MAX, Found, TooManyArtifacts, too_large, too_many
from airunner.agent.artifacts.packing import Packed, Packer, Piece
from airunner.agent.artifacts.step import Put
from airunner.agent.artifacts.uploading import WINDOW_BYTES, Uplink, Upload
from airunner.agent.jobsocket.connection import JobConnection
from airunner.protocol.artifactpaths import link_problem, name_problem
from airunner.protocol.blobs import PIECE_BYTES_MAX
from airunner.protocol.errors import BadRequest
from airunner.protocol.jobsocket import ArtifactsPut, PutContent, PutEnd, PutFile, ToAgent
from airunner.protocol.message import LeaseRef
from airunner.protocol.printable import one_line

BATCH_BYTES: Final = WINDOW_BYTES  # of content; each batch costs the broker a write besides those of its pieces
BATCH_BYTES_BESIDE: Final = PIECE_BYTES_MAX  # of each further request of a job at the same time
BATCH_MESSAGES: Final = 2_048  # also of files without content


class Puts(Struct):
    """Puts of one attempt: how files are stored and recorded, and how many there are; `say` writes to its log."""

    uplink: Uplink
    lease: LeaseRef
    record: Callable[[Packed[Found]], Awaitable[None]]
    say: Callable[[str], None]
    bytes_max: int
    so_far: Put
    busy: bool = False  # a request is served, which has large batches

    def count(self, files: int, size_bytes: int) -> None:
        """Count files and bytes that come. Raises `TooManyArtifacts`."""
        self.so_far.files += files
        self.so_far.size_bytes += size_bytes
        if self.so_far.files > FILES_MAX:
            raise TooManyArtifacts(too_many())
        if self.so_far.size_bytes > self.bytes_max:
            raise TooManyArtifacts(too_large(self.bytes_max))


async def put_artifacts(connection: JobConnection, puts: Puts) -> ArtifactsPut:
    """Keep the files that a connection brings.

    Raises `BadRequest`, `Hungup`, `TooManyArtifacts`; and as `Upload.store`.
    """
    upload = Upload(puts.uplink, puts.lease, puts.say)
    packer = Packer[Found]()
    put = _Put(puts)
    try:
        while not put.ended:
            batch = await put.receive(connection)
            packed = await puts.uplink.offload(partial(_packed, packer, batch))
            pieces = [each for each in packed if isinstance(each, Piece)]
            if pieces:
                async with puts.uplink.turns:
                    await upload.store(pieces)
            for each in packed:
                if isinstance(each, Packed):
                    await puts.record(each)
                    put.record(each)
    finally:
        put.close()
    return ArtifactsPut(files=put.files, size_bytes=put.size_bytes)


class _Put:
    """One request: the order of its messages, content only behind a file; and what is recorded of it."""

    def __init__(self, puts: Puts) -> None:
        self.ended = False
        self._first = not puts.busy
        puts.busy = True
        self._batch_bytes = BATCH_BYTES if self._first else BATCH_BYTES_BESIDE
        self.files = self.size_bytes = 0  # that are recorded
        self._puts = puts
        self._counted_files = self._counted_bytes = 0
        self._takes_content = False

    async def receive(self, connection: JobConnection) -> list[ToAgent]:
        """Receive a batch of messages. Raises `BadRequest`, `Hungup`, `TooManyArtifacts`."""
        batch: list[ToAgent] = []
        until_bytes = self._counted_bytes + self._batch_bytes
        while self._counted_bytes < until_bytes and len(batch) < BATCH_MESSAGES and not self.ended:
            message = await connection.receive()
            self._check(message)
            batch.append(message)
        return batch

    def record(self, packed: Packed[Found]) -> None:
        """Count a file that is recorded."""
        self.files += 1
        self.size_bytes += packed.size_bytes

    def close(self) -> None:
        """Take back the count of what has come and is not recorded."""
        if self._first:
            self._puts.busy = False
        so_far = self._puts.so_far
        so_far.files -= self._counted_files - self.files
        so_far.size_bytes -= self._counted_bytes - self.size_bytes

    def _check(self, message: ToAgent) -> None:
        """Check and count the next message. Raises `BadRequest`, `TooManyArtifacts`."""
        match message:
            case PutFile():
                _check_file(message)
                self._takes_content = not message.target and not message.path.endswith("/")
                self._count(1, 0)
            case PutContent(data=data):
                if not self._takes_content:
                    raise BadRequest("content that belongs to no file, or follows a short piece")
                self._takes_content = len(data) == PIECE_BYTES_MAX
                self._count(0, len(data))
            case PutEnd():
                self.ended = True
            case _:
                raise BadRequest("a request within a request")

    def _count(self, files: int, size_bytes: int) -> None:
        self._counted_files += files
        self._counted_bytes += size_bytes
        self._puts.count(files, size_bytes)


def _check_file(file: PutFile) -> None:
    problem = name_problem(file.path)
    if problem is None and file.target:
        folder = file.path.endswith("/")
        problem = "a folder has no target" if folder else link_problem(file.path, file.target)
    if problem is not None:
        raise BadRequest(f"{one_line(file.path)}: {problem}")


def _packed(packer: Packer[Found], batch: list[ToAgent]) -> list[Piece | Packed[Found]]:
    """Pack what a batch brings."""
    packed: list[Piece | Packed[Found]] = []
    for message in batch:
        match message:
            case PutFile():
                packed += packer.begin(Found(message.path, message.mode, target=message.target))
            case PutContent(data=data):
                packed += packer.add(data)
            case _:
                packed += packer.finish()
    return packed
