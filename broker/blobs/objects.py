"""Objects on a disk, or in S3, Google Cloud Storage or Azure: the port that the blob store uses, and obstore behind it.

An object is written whole or not at all. What was written is seen at once by every reader, also from other brokers; S3
promises that since December 2020. On a disk an object is synced before `put` returns.

Source: https://aws.amazon.com/s3/consistency/
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from airunner.protocol.errors import Busy

AWAY_RETRY_MS: Final = 1_000  # after which a request may be repeated when the objects cannot be reached
DELETED_MAX: Final = 1_000  # objects in one request to delete, as S3 takes them


class Objects(Protocol):
    """Objects by key. Methods raise `Busy`: they cannot be reached now; `NoSpace`: there is no room for more."""

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects; those of the same keys are replaced."""
        ...

    def get(self, key: str) -> bytes | None:
        """Read an object; None: there is none."""
        ...

    def missing(self, keys: Sequence[str]) -> tuple[int, ...]:
        """Look objects up; return the places in `keys` of those that there are not."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """List the keys of the objects in a folder and those in it."""
        ...

    def folders(self) -> list[str]:
        """List the topmost folders."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; a missing one is ignored."""
        ...


class StoredObjects:
    """Objects in a store of obstore. For any thread.

    `lookups_max`: how many it looks up at a time, in threads of its own; 0: one after the other, in the caller's.
    """

    def __init__(self, store: ObjectStore, lookups_max: int = 0) -> None:
        self._store = store
        self._lookups = ThreadPoolExecutor(lookups_max, "blob-lookup") if lookups_max else None

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects."""
        with _refusing():
            for key, content in objects.items():
                obstore.put(self._store, key, content, use_multipart=False)

    def get(self, key: str) -> bytes | None:
        """Read an object."""
        with _refusing():
            try:
                return bytes(obstore.get(self._store, key).bytes())
            except FileNotFoundError:
                return None

    def missing(self, keys: Sequence[str]) -> tuple[int, ...]:
        """Look objects up, one of them for each place."""
        found = map(self._has, keys) if self._lookups is None else self._lookups.map(self._has, keys)
        return tuple(place for place, has in enumerate(found) if not has)

    def _has(self, key: str) -> bool:
        with _refusing():
            try:
                obstore.head(self._store, key)
            except FileNotFoundError:
                return False
            return True

    def keys(self, prefix: str) -> Iterator[str]:
        """List keys, page by page."""
        with _refusing():
            listed: Any = obstore  # its types are known to pyright in part
            for page in listed.list(self._store, prefix):
                for found in page:
                    yield found["path"]

    def folders(self) -> list[str]:
        """List the topmost folders."""
        with _refusing():
            listed: Any = obstore
            return list(listed.list_with_delimiter(self._store)["common_prefixes"])

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, in as few requests as the store takes."""
        with _refusing():
            for at in range(0, len(keys), DELETED_MAX):
                try:
                    obstore.delete(self._store, keys[at : at + DELETED_MAX])
                except FileNotFoundError:  # some say so, and go no further
                    self._delete_each(keys[at : at + DELETED_MAX])

    def _delete_each(self, keys: Sequence[str]) -> None:
        for key in keys:
            with suppress(FileNotFoundError):
                obstore.delete(self._store, key)


@contextmanager
def _refusing() -> Generator[None]:
    """Translate failures of the store of objects to refusals."""
    try:
        yield
    except BaseError as error:
        raise Busy("the broker's blob store does not answer", retry_ms=AWAY_RETRY_MS) from error
