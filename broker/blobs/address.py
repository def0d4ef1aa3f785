"""Address of a blob store, as `--blobs` gives it: a folder, or a bucket such as s3://BUCKET/PREFIX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airunner.broker.blobs.caches import CACHE_BYTES_MAX
from airunner.broker.blobs.store import BlobStore
from airunner.certs.secretfile import make_folder
from airunner.protocol.errors import OperatorError

if TYPE_CHECKING:
    from airunner.broker.blobs.objects import Objects

SCHEMES: Final = ("s3", "gs", "az")
MEMORY: Final = "memory:"


def _unsaid(_line: str) -> None:
    """Say nothing."""


class _FolderObjects:
    """Objects in a folder; obstore is imported with their first use, so that a broker without files is smaller."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _objects(self) -> Objects:
        from obstore.store import LocalStore

        from airunner.broker.blobs.objects import StoredObjects

        return StoredObjects(LocalStore(self._folder), self._folder)

    def put(self, objects: Mapping[str, bytes]) -> None:
        self._objects.put(objects)

    def get(self, key: str) -> bytes | None:
        return self._objects.get(key)

    def missing(self, keys: Sequence[str]) -> tuple[int, ...]:
        return self._objects.missing(keys)

    def keys(self, prefix: str) -> Iterator[str]:
        return self._objects.keys(prefix)

    def folders(self) -> list[str]:
        return sorted(each.name for each in self._folder.iterdir() if each.is_dir())

    def delete(self, keys: Sequence[str]) -> None:
        self._objects.delete(keys)


def open_blobs(address: str, cache_bytes_max: int = CACHE_BYTES_MAX, say: Callable[[str], None] = _unsaid) -> BlobStore:
    """Open a blob store; `say` gets a line if it does not answer. Raises `OperatorError`: there can be none here."""
    scheme, separator, _ = address.partition("://")
    if address != MEMORY and not separator:
        folder = Path(address).absolute()
        make_folder(folder)
        return BlobStore(_FolderObjects(folder), cache_bytes_max)
    if address == MEMORY:
        from obstore.store import MemoryStore

        from airunner.broker.blobs.objects import StoredObjects

        return BlobStore(StoredObjects(MemoryStore()), cache_bytes_max)
    if scheme not in SCHEMES:
        raise OperatorError(f"--blobs {address!r}: expected a folder, or {', '.join(map('{}://…'.format, SCHEMES))}")
    from airunner.broker.blobs.bucket import open_bucket

    return BlobStore(open_bucket(address, say), cache_bytes_max)
