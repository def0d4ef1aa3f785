"""Address of a blob store, as `--blobs` gives it: a folder, or a bucket such as s3://BUCKET/PREFIX."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Final

from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, from_url

from airunner.broker.blobs.objects import StoredObjects
from airunner.broker.blobs.store import BlobStore
from airunner.certs.secretfile import make_folder
from airunner.protocol.errors import OperatorError

SCHEMES: Final = ("s3", "gs", "az")
MEMORY: Final = "memory:"
ANSWER_S: Final = 10.0  # for a request to a bucket; after it the sender is refused as `busy`, and repeats its request
RETRIES_MAX: Final = 2


def open_blobs(address: str) -> BlobStore:
    """Open a blob store. Raises `OperatorError`: there can be none at this address."""
    if address == MEMORY:
        return BlobStore(StoredObjects(MemoryStore()))
    scheme, separator, _ = address.partition("://")
    if not separator:
        folder = Path(address).absolute()
        try:
            make_folder(folder)
            return BlobStore(StoredObjects(LocalStore(folder), folder))
        except (OSError, BaseError) as error:
            raise OperatorError(f"--blobs {address!r} cannot be used as a folder: {error}") from error
    if scheme not in SCHEMES:
        raise OperatorError(f"--blobs {address!r}: expected a folder, or {', '.join(map('{}://…'.format, SCHEMES))}")
    try:
        store = from_url(
            address,
            client_options={"timeout": timedelta(seconds=ANSWER_S)},
            retry_config={"max_retries": RETRIES_MAX, "retry_timeout": timedelta(seconds=ANSWER_S)},
        )
    except BaseError as error:
        raise OperatorError(f"--blobs {address!r} cannot be used: {error}") from error
    return BlobStore(StoredObjects(store))
