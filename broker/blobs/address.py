"""Address of a blob store, as `--blobs` gives it: a folder, or a bucket such as s3://BUCKET/PREFIX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from airunner.broker.blobs.caches import CACHE_BYTES_MAX
from airunner.broker.blobs.folderobjects import FolderObjects
from airunner.broker.blobs.store import BlobStore
from airunner.certs.secretfile import make_folder
from airunner.protocol.errors import OperatorError

SCHEMES: Final = ("s3", "gs", "az")
MEMORY: Final = "memory:"


def _unsaid(_line: str) -> None:
    """Say nothing."""


def open_blobs(address: str, cache_bytes_max: int = CACHE_BYTES_MAX, say: Callable[[str], None] = _unsaid) -> BlobStore:
    """Open a blob store; `say` gets a line if it does not answer. Raises `OperatorError`: there can be none here."""
    scheme, separator, _ = address.partition("://")
    if address != MEMORY and not separator:
        folder = Path(address).absolute()
        make_folder(folder)
        return BlobStore(FolderObjects(folder), cache_bytes_max)
    if address == MEMORY:
        from obstore.store import MemoryStore

        from airunner.broker.blobs.objects import StoredObjects

        return BlobStore(StoredObjects(MemoryStore()), cache_bytes_max)
    if scheme not in SCHEMES:
        raise OperatorError(f"--blobs {address!r}: expected a folder, or {', '.join(map('{}://…'.format, SCHEMES))}")
    from airunner.broker.blobs.bucket import open_bucket

    return BlobStore(open_bucket(address, say), cache_bytes_max)
