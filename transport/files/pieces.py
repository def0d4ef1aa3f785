"""Pieces of files: requests the blobs of slices from the broker, several requests at once, and checks each.

```
 slices, in order ──► ids ──GetBlob, 4 at once──► blobs ──► pieces, the last 32 MiB ──► content of the next slice
```

A piece that several slices share is requested once, unless more than the last pieces came between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import anyio
from anyio.abc import TaskGroup

from airunner.protocol.blobs import PIECE_BYTES_MAX, Blob, Slice, unpacked
from airunner.protocol.errors import CorruptLog, Forged, NotFound, OperatorError, PeerError
from airunner.protocol.replies import BlobsGot
from airunner.protocol.requests import GetBlob
from airunner.protocol.requestsize import RequestSize

REQUESTS_MAX: Final = 4  # in flight, or answered and not used yet: up to 2 MiB of blobs each
IDS_MAX: Final = 64  # in a request: those of blobs that compress well are up to 64 MiB of pieces
KEPT_BYTES_MAX: Final = 33_554_432  # of the last pieces
MISSING: Final = "a piece of it is not in the broker's blob store"


class Source(Protocol):
    """Source of blobs: a `Channel`, or what repeats the requests over one."""

    @property
    def request_size(self) -> RequestSize:
        """How much a request may move."""
        ...

    async def ask(self, request: GetBlob, *, smaller: Callable[[], GetBlob] | None = None) -> BlobsGot:
        """Get blobs, as `Channel.ask` does."""
        ...


class _Request:
    """Request for blobs: `blobs` has those that are not used yet, once `done` is set."""

    def __init__(self, ids: Iterable[bytes]) -> None:
        self.missing = list(ids)
        self.blobs: dict[bytes, Blob] = {}
        self.done = anyio.Event()
        self.failure: PeerError | OperatorError | None = None
        self.scope = anyio.CancelScope()


class Pieces:
    """Pieces of `slices`, whose contents `next_content` returns in order; `close` it when they are not needed.

    The requests are sent to `source`, by tasks of `group`.
    """

    def __init__(self, source: Source, group: TaskGroup, slices: Iterable[Slice]) -> None:
        self._source = source
        self._group = group
        self._rest = iter(slices)
        self._planned = deque[Slice]()  # their pieces are kept, or requested
        self._requests: dict[_Request, None] = {}
        self._requested: dict[bytes, _Request] = {}  # by id of a blob that is not used yet
        self._kept: dict[bytes, bytes] = {}  # pieces by id, the least recently used first
        self._kept_bytes = 0
        self._got = 0  # blobs
        self._got_bytes = 0

    async def next_content(self) -> bytes:
        """Return the content of the next slice.

        Raises `Forged`: it is not what its id says; `CorruptLog`: the broker does not have it; the errors of `Client`.
        """
        while len(self._requests) < REQUESTS_MAX and (ids := self._plan()):
            self._request(ids)
        wanted = self._planned.popleft()
        piece = await self._piece(wanted.blob)
        if wanted.offset + wanted.length > len(piece):
            raise Forged(f"a piece of it has {len(piece):,} bytes, fewer than its slice needs")
        return piece[wanted.offset : wanted.offset + wanted.length]

    def close(self) -> None:
        """End the requests that are in flight."""
        for request in self._requests:
            request.scope.cancel()

    def _plan(self) -> list[bytes]:
        """Plan the next slices: return the ids of blobs for a request; none: nothing is left to request."""
        ids: dict[bytes, None] = {}
        room = self._ids_max()
        for each in self._rest:
            self._planned.append(each)
            if each.blob in self._kept:
                self._use(each.blob)
            elif each.blob not in self._requested:
                ids[each.blob] = None
                if len(ids) == room:
                    break
        return list(ids)

    def _ids_max(self) -> int:
        """Return how many blobs a request may ask for: as many as the link moves in a few seconds, by their mean."""
        mean_bytes = self._got_bytes // self._got if self._got else PIECE_BYTES_MAX
        return min(IDS_MAX, max(1, self._source.request_size.blobs_bytes_max // max(1, mean_bytes)))

    def _request(self, ids: list[bytes]) -> _Request:
        request = _Request(ids)
        self._requests[request] = None
        self._requested |= dict.fromkeys(ids, request)
        self._group.start_soon(self._get, request, name="GetBlob")
        return request

    async def _get(self, request: _Request) -> None:
        """Get the blobs of a request; a reply may have only the first of them."""

        def rest() -> GetBlob:
            return GetBlob(ids=tuple(request.missing[: self._ids_max()]))

        with request.scope:
            try:
                while request.missing:
                    blobs = (await self._source.ask(rest(), smaller=rest)).blobs
                    if not blobs or [blob.id for blob in blobs] != request.missing[: len(blobs)]:
                        request.failure = Forged("the broker has sent other pieces than it was asked for")
                        break
                    del request.missing[: len(blobs)]
                    request.blobs |= {blob.id: blob for blob in blobs}
                    self._got += len(blobs)
                    self._got_bytes += sum(len(blob.content) for blob in blobs)
            except NotFound:
                request.failure = CorruptLog(MISSING)
            except (PeerError, OperatorError) as error:
                request.failure = error
            request.done.set()

    async def _piece(self, blob_id: bytes) -> bytes:
        if blob_id in self._kept:
            return self._use(blob_id)
        request = self._requested.get(blob_id) or self._request([blob_id])
        await request.done.wait()
        if request.failure is not None and blob_id not in request.blobs:
            raise request.failure
        del self._requested[blob_id]
        blob = request.blobs.pop(blob_id)
        if not request.blobs and request.failure is None:
            del self._requests[request]
        piece = unpacked(blob)  # some 2 ms for 1 MiB
        self._keep(blob_id, piece)
        return piece

    def _use(self, blob_id: bytes) -> bytes:
        piece = self._kept[blob_id] = self._kept.pop(blob_id)
        return piece

    def _keep(self, blob_id: bytes, piece: bytes) -> None:
        self._kept[blob_id] = piece
        self._kept_bytes += len(piece)
        while self._kept_bytes > KEPT_BYTES_MAX:
            self._kept_bytes -= len(self._kept.pop(next(iter(self._kept))))
