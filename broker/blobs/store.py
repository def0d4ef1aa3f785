"""Blob store: blobs and claims as objects on a disk, or in S3, Google Cloud Storage or Azure.

```
 TENANT/blobs/ab/abcd…      a blob, as it was sent: the first two digits of its id, and the id
 TENANT/claims/JOB/REQUEST  ids that a request has claimed for a job, one after the other
```

An object is written whole or not at all, and is never changed. On a disk it is also synced before its request is
answered. A tenant's name has no `=`, which stands for `/` in its folder's name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import ObjectStore

from airunner.protocol.blobs import REQUEST_BYTES_MAX, Blob, unpacked
from airunner.protocol.errors import Busy, NoSpace, NotFound
from airunner.protocol.names import JobName, RequestId

AWAY_RETRY_MS: Final = 1_000  # after which a request may be repeated when the store of objects does not answer
_FULL: Final = ("No space left on device", "Disk quota exceeded")


class BlobStore:
    """Blob store in `objects`; `folder` is the same as a folder of the disk, if it is one. Any thread may call it.

    Methods raise `Busy`: the store of objects is away; `NoSpace`: it is full.
    """

    def __init__(self, objects: ObjectStore, folder: Path | None = None) -> None:
        self._objects = objects
        self._folder = folder

    def claim(self, tenant: str, job_id: JobName, request_id: RequestId, ids: Sequence[bytes]) -> None:
        """Claim blobs for a job; a repeat of the request changes nothing."""
        self._write([(f"{_folder_of(tenant)}/claims/{job_id}/{request_id.hex()}", b"".join(ids))])

    def missing(self, tenant: str, ids: Sequence[bytes]) -> tuple[int, ...]:
        """Return the places in `ids` of blobs that are not stored."""
        with _refusing():
            return tuple(place for place, blob in enumerate(ids) if not self._has(_key_of(tenant, blob)))

    def put(self, tenant: str, blobs: Sequence[Blob]) -> None:
        """Store blobs. Raises `Forged`: one has other content than its id says, and nothing is stored."""
        for blob in blobs:
            unpacked(blob)
        self._write([(_key_of(tenant, blob.id), blob.content) for blob in blobs])

    def get(self, tenant: str, ids: Iterable[bytes]) -> tuple[Blob, ...]:
        """Read the first blobs, as many as fit in a reply. Raises `NotFound`: the first is not stored."""
        found: list[Blob] = []
        size_bytes = 0
        for blob in ids:
            content = self._read(_key_of(tenant, blob))
            if content is None or (found and size_bytes + len(content) > REQUEST_BYTES_MAX):
                break
            size_bytes += len(content)
            found.append(Blob(blob, content))
        if not found:
            raise NotFound("this blob is not stored")
        return tuple(found)

    def _read(self, key: str) -> bytes | None:
        with _refusing():
            try:
                return bytes(obstore.get(self._objects, key).bytes())
            except NotFoundError:
                return None

    def _has(self, key: str) -> bool:
        try:
            obstore.head(self._objects, key)
        except NotFoundError:
            return False
        return True

    def _write(self, objects: Sequence[tuple[str, bytes]]) -> None:
        with _refusing():
            for key, content in objects:
                obstore.put(self._objects, key, content, use_multipart=False)
            if self._folder is not None:
                _sync([self._folder / key for key, _ in objects])


def _key_of(tenant: str, blob: bytes) -> str:
    digits = blob.hex()
    return f"{_folder_of(tenant)}/blobs/{digits[:2]}/{digits}"


def _folder_of(tenant: str) -> str:
    return tenant.replace("/", "=")


def _sync(files: Sequence[Path]) -> None:
    """Sync files and their folders to the disk."""
    for path in [*files, *{path.parent for path in files}]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _refusing() -> Iterator[None]:
    """Translate failures of the store of objects to refusals."""
    try:
        yield
    except BaseError as error:
        if any(word in str(error) for word in _FULL):
            raise NoSpace("the broker's blob store is full: free space there") from error
        raise Busy("the broker's blob store does not answer", retry_ms=AWAY_RETRY_MS) from error
    except OSError as error:
        raise NoSpace(f"the broker's blob store cannot be written: {error.strerror}") from error
