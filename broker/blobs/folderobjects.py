"""Objects in a folder of the disk: each is a file, which is whole and synced before it has its name.

```
 FOLDER/KEY          an object: the slashes of its key are those of its path
 FOLDER/KEY#DIGITS   one that is being written, or was when a broker died: it is no object, never read,
                      and removed after a day
```

No key has a `#`. Brokers of one fleet may share a folder, if their file system shows each what another has written.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from airunner.certs.secretfile import sync_folder
from airunner.protocol.errors import BadRequest, Busy, NoSpace, PeerError

RETRY_MS: Final = 1_000  # after which a request may be repeated when the disk has failed to read
DRAFT: Final = "#"  # begins the end of a name of a file that is being written
DRAFT_S: Final = 86_400  # s, after which nothing is still being written
_DRAFT_BITS: Final = 63
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_NAMELESS: Final = frozenset(("", ".", ".."))


class FolderObjects:
    """Objects in `folder`, which exists; see `Objects`. Any thread may call it.

    Methods raise `BadRequest` also for a key that is no path below the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects: all of their files first, then their names, and then what the folders have."""
        drafts: dict[Path, Path] = {}  # by the path of the object
        changed: set[Path] = set()  # folders with new names
        with _refusing(_no_room):
            try:
                for key, content in objects.items():
                    path = self._path(key)
                    drafts[path] = draft = path.with_name(f"{path.name}{DRAFT}{secrets.randbits(_DRAFT_BITS)}")
                    changed |= _write(draft, content)
                for path, draft in drafts.items():
                    draft.rename(path)
                for folder in changed:
                    sync_folder(folder)
            except BaseException:
                for draft in drafts.values():
                    with suppress(OSError):
                        draft.unlink()
                raise

    def get(self, key: str) -> bytes | None:
        """Read an object."""
        with _refusing(_away):
            try:
                with self._path(key).open("rb", buffering=0) as file:
                    return file.readall()
            except FileNotFoundError:
                return None

    def missing(self, keys: Sequence[str]) -> tuple[int, ...]:
        """Look objects up."""
        return tuple(place for place, key in enumerate(keys) if not self._has(key))

    def _has(self, key: str) -> bool:
        with _refusing(_away):
            try:
                self._path(key).stat()
            except FileNotFoundError:
                return False
            return True

    def keys(self, prefix: str) -> Iterator[str]:
        """List keys, one folder after the other."""
        waiting = [prefix]
        while waiting:
            within = waiting.pop()
            for name, is_folder in self._entries(within):
                if is_folder:
                    waiting.append(f"{within}/{name}")
                elif DRAFT in name:
                    self._remove_old_draft(within, name)
                else:
                    yield f"{within}/{name}"

    def _remove_old_draft(self, folder: str, name: str) -> None:
        """Remove a file that a broker has left when it died; a younger one may still be written."""
        draft = self._path(folder) / name
        with _refusing(_away), suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > DRAFT_S:
                draft.unlink()

    def _entries(self, folder: str) -> list[tuple[str, bool]]:
        """List what is in a folder, and whether it is a folder; nothing is in one that does not exist."""
        with _refusing(_away):
            try:
                with os.scandir(self._path(folder)) as entries:
                    return [(entry.name, entry.is_dir()) for entry in entries]
            except FileNotFoundError:
                return []

    def folders(self) -> list[str]:
        """List the topmost folders."""
        with _refusing(_away):
            return sorted(each.name for each in self._folder.iterdir() if each.is_dir())

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; a missing one is ignored."""
        with _refusing(_away):
            for key in keys:
                with suppress(FileNotFoundError):
                    self._path(key).unlink()

    def _path(self, key: str) -> Path:
        """Return the path of an object. Raises `BadRequest`: it has none below the folder."""
        if "\0" in key or DRAFT in key or not _NAMELESS.isdisjoint(key.split("/")):
            raise BadRequest("a name in the request cannot be that of a file")
        return self._folder / key


def _write(path: Path, content: bytes) -> set[Path]:
    """Write a new file, and sync it; return the folders to sync: its own, and those in which others were made."""
    changed = {path.parent}
    try:
        file = path.open("xb")
    except FileNotFoundError:
        changed |= {each.parent for each in (path.parent, *path.parents) if not each.exists()}
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    with file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return changed


def _no_room(error: OSError) -> PeerError:
    if error.errno in _FULL:
        return NoSpace("the broker's blob store is full: free space there")
    return NoSpace(f"the broker's blob store cannot be written: {error.strerror}")


def _away(error: OSError) -> PeerError:
    return Busy(f"the broker's blob store does not answer: {error.strerror}", retry_ms=RETRY_MS)


@contextmanager
def _refusing(refusal: Callable[[OSError], PeerError]) -> Generator[None]:
    """Translate failures of the disk to refusals."""
    try:
        yield
    except OSError as error:
        raise refusal(error) from error
