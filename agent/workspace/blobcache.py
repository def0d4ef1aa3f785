"""Blob cache of an agent: blobs that it has read from the broker, kept on its disk for all of its slots.

```
<agent home>/blobs/ab/abcd…      a blob, as it was sent; changed last when it was last used
<agent home>/blobs/.new-…        one that is being written: renamed when it is whole, removed by the next agent
```

A blob's name is a hash of its tenant and its id: an agent whose token changes to another tenant's finds none of the
first one's. A cached blob is read only if its content has its id, so a torn or changed file is as good as none. When
the blobs have more than `bytes_max` bytes, those are removed that were not used for the longest
time. No trouble with the disk is an error here: what cannot be kept or read comes from the broker.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from threading import Lock
from typing import Final

from airunner.agent.workspace.workspace import Offload
from airunner.protocol.blobs import BLOB_BYTES_MAX, ID_BYTES, REQUEST_BYTES_MAX, Blob, checked
from airunner.protocol.blobs import blob_id as hash_of
from airunner.protocol.errors import Forged
from airunner.protocol.replies import BlobsGot
from airunner.protocol.requests import GetBlob
from airunner.protocol.requestsize import RequestSize
from airunner.transport.files.pieces import Source

FOLDER: Final = "blobs"
KEPT_SHARE: Final = 0.9  # of `bytes_max` that remains when blobs are removed: so it is not done at each new one
_NEW: Final = ".new-"
_NAME_BYTES: Final = 8  # of a temporary name


class BlobCache:
    """Blob cache in `folder`, of at most `bytes_max` bytes of all tenants. Any thread may call it."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._lock = Lock()
        self._sizes: dict[bytes, int] | None = None  # bytes by name, the least recently used first; None: not known yet
        self._bytes = 0

    def get(self, tenant: str, blob_id: bytes) -> Blob | None:
        """Read a blob; None: it is not here, or has other content than its id says."""
        name = _name_of(tenant, blob_id)
        if not self._has(name):
            return None
        path = self._path(name)
        try:
            with path.open("rb") as file:
                blob = Blob(blob_id, file.read(BLOB_BYTES_MAX + 1))
            checked(blob)
            os.utime(path)
        except (OSError, Forged):
            self._drop([name])
            return None
        with self._lock:
            sizes = self._known()
            if (size_bytes := sizes.pop(name, None)) is not None:
                sizes[name] = size_bytes
        return blob

    def put(self, tenant: str, blobs: Iterable[Blob]) -> None:
        """Keep blobs, unless the disk refuses them."""
        for blob in blobs:
            name = _name_of(tenant, blob.id)
            if self._has(name):
                continue
            fresh = self._folder / f"{_NEW}{secrets.token_hex(_NAME_BYTES)}"
            path = self._path(name)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                fresh.write_bytes(blob.content)
                fresh.rename(path)
            except OSError:
                with suppress(OSError):
                    fresh.unlink()
                return
            with self._lock:
                self._note(name, len(blob.content))
        self._drop(self._excess())

    def missing(self, tenant: str, ids: Iterable[bytes]) -> list[bytes]:
        """Return those of the ids whose blobs are not here."""
        return [each for each in ids if not self._has(_name_of(tenant, each))]

    def first(self, tenant: str, ids: Sequence[bytes]) -> tuple[Blob, ...]:
        """Read the first blobs, as many as are here and as a reply of the broker may have."""
        found: list[Blob] = []
        size_bytes = 0
        for each in ids:
            blob = self.get(tenant, each)
            if blob is None or (found and size_bytes + len(blob.content) > REQUEST_BYTES_MAX):
                break
            size_bytes += len(blob.content)
            found.append(blob)
        return tuple(found)

    def _has(self, name: bytes) -> bool:
        with self._lock:
            return name in self._known()

    def _path(self, name: bytes) -> Path:
        digits = name.hex()
        return self._folder / digits[:2] / digits

    def _known(self) -> dict[bytes, int]:
        """Return the sizes of all blobs; the first time they are found on the disk. The lock is held."""
        if self._sizes is None:
            self._sizes = {}
            for _, name, size_bytes in sorted(_found_in(self._folder)):
                self._note(name, size_bytes)
        return self._sizes

    def _note(self, name: bytes, size_bytes: int) -> None:
        sizes = self._known()
        self._bytes += size_bytes - sizes.pop(name, 0)
        sizes[name] = size_bytes

    def _excess(self) -> list[bytes]:
        """Return the blobs to remove, if they have too many bytes."""
        with self._lock:
            sizes = self._known()
            excess_bytes = self._bytes - int(self._bytes_max * KEPT_SHARE)
            if self._bytes <= self._bytes_max:
                return []
            removed: list[bytes] = []
            for name, size_bytes in sizes.items():
                if excess_bytes <= 0:
                    break
                excess_bytes -= size_bytes
                removed.append(name)
            return removed

    def _drop(self, names: Iterable[bytes]) -> None:
        for name in names:
            with self._lock:
                self._bytes -= self._known().pop(name, 0)
            with suppress(OSError):
                self._path(name).unlink()


class CachedBlobs:
    """Source of a tenant's blobs through a cache: those that are in it are not requested from the `source`."""

    def __init__(self, cache: BlobCache, tenant: str, source: Source, offload: Offload) -> None:
        self._cache = cache
        self._tenant = tenant
        self._source = source
        self._offload = offload

    @property
    def request_size(self) -> RequestSize:
        """How much a request to the source may move."""
        return self._source.request_size

    async def ask(self, request: GetBlob, *, smaller: Callable[[], GetBlob] | None = None) -> BlobsGot:
        """Get the first of the blobs, as the source does. Raises what that raises."""
        found, wanted = await self._offload(lambda: self._split(request.ids))
        if found:
            return BlobsGot(blobs=found)
        newest = smaller or (lambda: request)
        got = await self._source.ask(
            GetBlob(ids=wanted), smaller=lambda: GetBlob(ids=wanted[: max(1, len(newest().ids))])
        )
        await self._offload(lambda: self._cache.put(self._tenant, got.blobs))
        return got

    def _split(self, ids: tuple[bytes, ...]) -> tuple[tuple[Blob, ...], tuple[bytes, ...]]:
        """Return the first blobs, if they are in the cache; otherwise the ids of those that are to be requested."""
        found = self._cache.first(self._tenant, ids)
        if found:
            return found, ()
        missing = {ids[0], *self._cache.missing(self._tenant, ids[1:])}
        return (), tuple(takewhile(missing.__contains__, ids))


def _name_of(tenant: str, blob_id: bytes) -> bytes:
    return hash_of(tenant.encode() + blob_id)


def _found_in(folder: Path) -> Iterable[tuple[int, bytes, int]]:
    """Yield the blobs in a folder: when each was used last, its name and its size; remove what is no blob."""
    with suppress(OSError):
        for place in folder.iterdir():
            if place.name.startswith(_NEW):
                with suppress(OSError):
                    place.unlink()
                continue
            for file in place.iterdir():
                with suppress(OSError, ValueError):
                    name, status = bytes.fromhex(file.name), file.stat()
                    if len(name) == ID_BYTES:
                        yield status.st_mtime_ns, name, status.st_size
