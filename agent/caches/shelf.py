"""Shelf of caches: the folders of caches on this agent's disk, which jobs get in place.

```
<agent home>/caches/
├── seed               random bytes, from which names of workspaces are made if the broker gives no key
├── <place>-<random>/  a whole version of the cache with this place
│   ├── facts          whose it is, and its size
│   ├── manifest       its files as the broker has them, if it has
│   └── 0/, 1/, …      its folders, by the numbers of its paths
└── .job-<random>/     what a job uses now: its folders are in the job's workspace
```

A version is a folder whose name is made by one `rename`, of a folder that is whole. A job that may save gets the
version itself: it is renamed to `.job-…`, and its folders are moved into the workspace. So a job or an agent that is
killed leaves nothing that has the name of a version, and the next job begins with what the broker has. Only one process
uses an agent's home: its tasks need no lock on the disk. What another boot of the machine has written is not trusted,
because files are not synced.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import blake2b
from operator import itemgetter
from pathlib import Path
from typing import Final

import anyio
import msgspec
from msgspec import Struct

from airunner.agent.workspace.workspace import NAME_BYTES, Leftover, Offload, remove_workspace
from airunner.certs.secretfile import make_folder

CACHES_FOLDER: Final = "caches"  # in an agent's home
FACTS: Final = "facts"
MANIFEST: Final = "manifest"
BEGAN: Final = "began"  # its time shows when a job has got the folders
_USED: Final = ".job"
_SEED: Final = "seed"
_PLACE_BYTES: Final = 16
SPARE_BYTES: Final = 1 << 30  # of a large disk, which caches leave free
_FILE_BYTES: Final = 4_096  # of disk for each file besides its content, as a rough rule
_PRIVATE: Final = 0o600
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_facts_encoder = msgspec.json.Encoder()


class Facts(Struct, frozen=True):
    """Facts of a version, beside its folders; `of` says in words whose cache it is, for an operator who looks."""

    of: tuple[str, ...]
    key: str
    content_bytes: int
    size_bytes: int  # on the disk, roughly
    uid: int
    boot: str


class Version(Struct):
    """Version on the shelf; `readers` copy or upload it now."""

    folder: Path
    facts: Facts
    readers: int = 0
    unwanted: bool = False  # to be removed after the last reader

    @property
    def shared(self) -> bool:
        """Whether the broker has, or had, this version or an earlier one."""
        return (self.folder / MANIFEST).exists()

    def note(self, manifest: bytes) -> None:
        """Note which version the broker has. Raises `OSError`."""
        _write(self.folder / MANIFEST, manifest)


def place_of(*of: str) -> str:
    """Make the place of a cache from whose it is: tenant, queue, label, name and paths."""
    return blake2b(b"\0".join(word.encode() for word in of), digest_size=_PLACE_BYTES).hexdigest()


class Shelf:
    """Shelf in one agent home, whose versions take up to `bytes_max` of disk together.

    They leave `spare_bytes` of it free; None: a twentieth of a small disk, `SPARE_BYTES` of a large one.
    """

    def __init__(self, agent_home: Path, offload: Offload, bytes_max: int, spare_bytes: int | None = None) -> None:
        self._spare_bytes = spare_bytes
        self._folder = agent_home / CACHES_FOLDER
        self._offload = offload
        self._bytes_max = bytes_max
        self._versions: dict[str, Version] | None = None  # by place, the least recently used first

    def begin(self) -> Path:
        """Make a folder for what a job uses of a cache. Raises `OSError`."""
        self._known()
        folder = self._folder / f"{_USED}-{secrets.token_hex(NAME_BYTES)}"
        folder.mkdir()
        return folder

    def version(self, place: str) -> Version | None:
        """Return the version of a place; None: there is none now. Raises `OSError`."""
        return self._known().get(place)

    def taken(self, place: str, uid: int) -> Path | None:
        """Take a version off the shelf for one job alone, and return its folder; None: the user may not change it now.

        Raises `OSError`.
        """
        version = self._known().get(place)
        if version is None or version.readers or version.facts.uid != uid:
            return None
        folder = self._renamed(version.folder)
        del self._known()[place]
        return folder

    async def drop(self, place: str) -> None:
        """Remove the version of a place, once it has no reader. Raises `OSError`."""
        if (version := self._known().pop(place, None)) is not None:
            await self._retire(version)

    @asynccontextmanager
    async def reading(self, version: Version) -> AsyncGenerator[None]:
        """Open a block in which a version stays as it is."""
        version.readers += 1
        try:
            yield
        finally:
            version.readers -= 1
            if version.unwanted and not version.readers:
                with anyio.CancelScope(shield=True):
                    await self.remove(version.folder)

    @asynccontextmanager
    async def kept(self, place: str, folder: Path, facts: Facts) -> AsyncGenerator[Version]:
        """Open a block in which what a job has used stays as it is, and is the version of its place from now on.

        Raises `OSError`.
        """
        versions = self._known()
        (folder / MANIFEST).unlink(missing_ok=True)  # it is that of the version before
        _write(folder / FACTS, _facts_encoder.encode(facts))
        gone = [versions.pop(place)] if place in versions else []
        versions[place] = kept = Version(self._renamed(folder, place), facts)
        excess_bytes = self._excess_bytes(sum(version.facts.size_bytes for version in gone))
        places = [place] if facts.size_bytes > self._bytes_max else list(versions)
        for oldest in places:
            if excess_bytes <= 0:
                break
            gone.append(versions.pop(oldest))
            excess_bytes -= gone[-1].facts.size_bytes
        async with self.reading(kept):
            for version in gone:
                await self._retire(version)
            yield kept

    def _excess_bytes(self, going_bytes: int) -> int:
        """Return how much of the versions has to go, when `going_bytes` of others go. Raises `OSError`."""
        disk = os.statvfs(self._folder)
        spare_bytes = self._spare_bytes
        if spare_bytes is None:
            spare_bytes = min(SPARE_BYTES, disk.f_blocks * disk.f_frsize // 20)
        lacking_bytes = spare_bytes - disk.f_bavail * disk.f_frsize - going_bytes
        return max(sum(each.facts.size_bytes for each in self._known().values()) - self._bytes_max, lacking_bytes)

    async def _retire(self, version: Version) -> None:
        version.unwanted = True
        if not version.readers:
            await self.remove(version.folder)

    async def remove(self, folder: Path) -> None:
        """Remove a folder of the shelf."""
        with suppress(FileNotFoundError):
            gone = self._renamed(folder)  # so that an agent that is killed meanwhile leaves no version
            await self._offload(lambda: remove_workspace(gone))

    def _renamed(self, folder: Path, place: str = _USED) -> Path:
        """Rename a folder of the shelf, to one that jobs use or, with a place, to a version. Raises `OSError`."""
        return folder.rename(self._folder / f"{place}-{secrets.token_hex(NAME_BYTES)}")

    def seat(self, place: str, key: bytes = b"") -> str:
        """Return the name of the workspace for jobs with this cache: programs note the paths of what they cache.

        All agents with the broker's `key` for the tenant give the same name, which nobody without it can guess.
        Without one, the name is this agent's own. Raises `OSError`.
        """
        return blake2b(place.encode(), key=key or self._seed(), digest_size=NAME_BYTES).hexdigest()

    def _seed(self) -> bytes:
        file = self._folder / _SEED
        try:
            seed = file.read_bytes()
        except FileNotFoundError:
            make_folder(self._folder)
            seed = secrets.token_bytes(_PLACE_BYTES)
            _write(file, seed)
        return seed[:_PLACE_BYTES]

    def _known(self) -> dict[str, Version]:
        """Return the versions, which are read from the disk once. Raises `OSError`."""
        if self._versions is None:
            make_folder(self._folder)
            found: list[tuple[int, str, Version]] = []
            for folder in self._folder.iterdir():
                place, dash, _ = folder.name.partition("-")
                if place.isalnum() and dash and (facts := _facts_in(folder)) is not None:
                    found.append((folder.stat().st_ctime_ns, place, Version(folder, facts)))
            self._versions = {place: version for _, place, version in sorted(found, key=itemgetter(0))}
        return self._versions


def remove_unused(agent_home: Path) -> list[Leftover]:
    """Remove what a killed agent's jobs have used, and what cannot be trusted. The home must be locked."""
    latest: dict[str, Path] = {}
    gone: list[Path] = []
    boot = _boot()
    for folder in sorted((agent_home / CACHES_FOLDER).glob("*-*"), key=lambda each: each.lstat().st_ctime_ns):
        place = folder.name.partition("-")[0]
        if folder.name.startswith(_USED) or (facts := _facts_in(folder)) is None or facts.boot != boot:
            gone.append(folder)
        else:
            gone += [latest[place]] if place in latest else []
            latest[place] = folder
    return [left for folder in gone for left in remove_workspace(folder)]


def facts_of(of: Sequence[str], key: str, content_bytes: int, files: int, uid: int) -> Facts:
    """Make the facts of what this boot of the machine has written."""
    return Facts(tuple(of), key, content_bytes, content_bytes + _FILE_BYTES * files, uid, _boot())


def _boot() -> str:
    return _BOOT.read_text().strip()


def _facts_in(folder: Path) -> Facts | None:
    try:
        return msgspec.json.decode((folder / FACTS).read_bytes(), type=Facts)
    except (OSError, msgspec.DecodeError):
        return None


def _write(file: Path, content: bytes) -> None:
    """Write a file whole, beside which no other is written under its name. Raises `OSError`."""
    draft = file.with_name(f".{file.name}-{secrets.token_hex(NAME_BYTES)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE), "wb") as stream:
        stream.write(content)
    draft.rename(file)
