"""Uploading of pieces of files: stores those that the broker does not have, for all attempts of an agent.

Pieces are stored by windows: their ids are sent first, then those of them that the broker lacks, several requests at a
time. All attempts together have a bounded number of windows in memory and of bytes in flight. Requests are as large as
the link carries, so that heartbeats behind them arrive in time; a piece is one request at least.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio

from airunner.agent.artifacts.packing import Piece
from airunner.agent.launcher.contract import LeaseEnded
from airunner.agent.workspace.workspace import Offload
from airunner.protocol.blobs import Blob, BlobId, packed
from airunner.protocol.errors import BadRequest, Forged, NoBlobs, NotFound, PeerError, StaleToken
from airunner.protocol.message import LeaseRef
from airunner.protocol.requests import HaveBlobs, PutBlob
from airunner.transport.backoff import Backoff, retry
from airunner.transport.bell import Bell
from airunner.transport.channel import Channel
from airunner.transport.heap import keep_freed_memory

WINDOW_BYTES: Final = 16_777_216  # pieces of one window
WINDOWS_MAX: Final = 2  # of an agent at a time: one is read while another is sent
PUTS_MAX: Final = 4  # requests with blobs in flight at a time
PACKED_BYTES: Final = 4_194_304  # blobs that are made of pieces at a time: soon sent, and their memory used again
REFUSED_FIRST_MS: Final = 500  # longest first pause before a refused request is sent again; the bound then doubles
REFUSED_LAST_MS: Final = 30_000  # longest pause of all
SILENT_S: Final = 10.0  # without an answer, after which the log says that the broker is waited for
FINAL: Final = (NotFound, StaleToken, NoBlobs, BadRequest, Forged)
"""Refusals that no repeat mends. After any other, such as for lack of room or of a valid token, one may be accepted."""

T = TypeVar("T")


class Uplink:
    """Uplink of an agent for blobs, which its attempts share. `random` is for the pauses after refusals."""

    def __init__(self, channel: Channel, offload: Offload, random: Callable[[], float]) -> None:
        self.channel = channel
        self.offload = offload
        self.turns = anyio.Semaphore(WINDOWS_MAX)  # for windows in memory
        self._random = random
        self._gate = anyio.Lock()  # requests are sent in the order in which they came
        self._flying_bytes = 0
        self._landed = Bell()

    @asynccontextmanager
    async def room(self, size_bytes: int) -> AsyncGenerator[None]:
        """Wait until so many bytes may be in flight too, or nothing is, and count them while the block runs."""
        async with self._gate:
            while not self._has_room(size_bytes):
                await self._landed.wait()
            self._flying_bytes += size_bytes
        try:
            yield
        finally:
            self._flying_bytes -= size_bytes
            self._landed.ring()

    def _has_room(self, size_bytes: int) -> bool:
        bytes_max = PUTS_MAX * self.channel.request_size.blobs_bytes_max
        return not self._flying_bytes or self._flying_bytes + size_bytes <= bytes_max

    def backoff(self) -> Backoff:
        """Make the pauses of one request."""
        return Backoff(self._random, REFUSED_FIRST_MS, REFUSED_LAST_MS)


class Upload:
    """Upload of one attempt, whose lease is `lease`.

    `say` writes a line into its log, which names `what` waits. Refusals that are `final` are not repeated.
    """

    def __init__(
        self,
        uplink: Uplink,
        lease: LeaseRef,
        say: Callable[[str], None],
        what: str = "artifacts",
        final: tuple[type[PeerError], ...] = FINAL,
    ) -> None:
        keep_freed_memory(WINDOWS_MAX * WINDOW_BYTES)
        self._uplink = uplink
        self._lease = lease
        self._say = say
        self._what = what
        self._final = final
        self.sent_bytes = 0  # of pieces that the broker has lacked
        self._waits = False  # the log says that the broker refuses
        self._taken: set[BlobId] = set()  # pieces that are stored, or are being
        self._asking = 0  # requests that are not answered
        self._since_s = 0.0  # when the broker last answered one, or the first of these was sent

    async def store(self, pieces: Sequence[Piece], also: Sequence[BlobId] = ()) -> set[BlobId]:
        """Store pieces; those that another call has taken are left to it. Claim others too; return what lacks of these.

        It waits as long as the broker has no room. Raises, alone or in a group: `LeaseEnded`; `NoBlobs`: the
        broker keeps no blobs; `PeerError`: it refuses them.
        """
        wanted = {piece.id: piece for piece in pieces if piece.id not in self._taken}
        ids = (*wanted, *(other for other in also if other not in wanted))
        if not ids:
            return set()
        self._taken |= wanted.keys()
        missing = {ids[place] for place in await self.claim(ids)}
        lacking = [piece for piece in wanted.values() if piece.id in missing]
        self.sent_bytes += sum(len(piece.content) for piece in lacking)
        unsent = _Unsent(lacking, self._uplink)
        async with anyio.create_task_group() as group:
            for _ in range(PUTS_MAX):
                group.start_soon(self._put, unsent)
        return missing - wanted.keys()

    async def watch(self) -> None:
        """Say once that the broker is waited for, such as while its blob store is away; it may refuse and be silent."""
        while not self._waits:
            since_s = self._since_s if self._asking else anyio.current_time()
            await anyio.sleep_until(since_s + SILENT_S)
            if self._asking and self._since_s == since_s:
                self._wait_for(f"it has stored nothing of them for {SILENT_S:.0f} s")

    async def claim(self, ids: tuple[BlobId, ...]) -> tuple[int, ...]:
        """Claim blobs, and return the places in `ids` of those that the broker lacks. Raises as `store`."""
        channel = self._uplink.channel
        try:
            return (await self._asked(lambda: channel.ask(HaveBlobs(lease=self._lease, ids=ids)))).missing
        except BadRequest as error:
            raise NoBlobs("this broker is too old to keep files of jobs") from error

    async def _put(self, unsent: _Unsent) -> None:
        """Store blobs until none is left to take."""
        while batch := await unsent.take():
            async with self._uplink.room(_bytes_of(batch)):
                await self._send(batch, unsent)

    async def _send(self, batch: list[Blob], unsent: _Unsent) -> None:
        """Store a batch; what the link does not carry any more is sent later."""
        channel = self._uplink.channel

        def request() -> PutBlob:
            while len(batch) > 1 and _bytes_of(batch) > channel.request_size.blobs_bytes_max:
                unsent.blobs.appendleft(batch.pop())
            return PutBlob(lease=self._lease, blobs=tuple(batch))

        await self._asked(lambda: channel.ask(request(), smaller=request))

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        self._since_s = self._since_s if self._asking else anyio.current_time()
        self._asking += 1
        try:
            return await retry(ask, self._uplink.backoff(), self._refused, final=self._final)
        except (NotFound, StaleToken) as lost:
            raise LeaseEnded from lost
        finally:
            self._asking -= 1
            self._since_s = anyio.current_time()

    def _refused(self, error: PeerError) -> None:
        self._wait_for(error.message)

    def _wait_for(self, why: str) -> None:
        if not self._waits:
            self._say(f"{self._what} wait for the broker: {why}")
        self._waits = True


class _Unsent:
    """Unsent pieces of a window: the next few are packed in a thread, so that not all are in memory twice."""

    def __init__(self, pieces: Iterable[Piece], uplink: Uplink) -> None:
        self._pieces = deque(pieces)
        self.blobs = deque[Blob]()  # of the pieces that came before
        self._uplink = uplink
        self._packing = anyio.Lock()

    async def take(self) -> list[Blob]:
        """Take the next blobs, as many as a request carries; none is left if there is none."""
        bytes_max = self._uplink.channel.request_size.blobs_bytes_max
        async with self._packing:
            if self._pieces and _bytes_of(self.blobs) < bytes_max:
                self.blobs.extend(await self._uplink.offload(self._packed))
        batch: list[Blob] = []
        while self.blobs and (not batch or _bytes_of([*batch, self.blobs[0]]) <= bytes_max):
            batch.append(self.blobs.popleft())
        return batch

    def _packed(self) -> list[Blob]:
        blobs: list[Blob] = []
        size_bytes = 0
        while self._pieces and size_bytes < PACKED_BYTES:
            piece = self._pieces.popleft()
            blobs.append(packed(piece.content, piece.id))
            size_bytes += len(blobs[-1].content)
        return blobs


def _bytes_of(blobs: Iterable[Blob]) -> int:
    return sum(len(blob.content) for blob in blobs)
