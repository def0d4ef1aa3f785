"""Cache step of an attempt: gets its caches before the command, and saves them after it.

A cache comes from the first of these: the version of this agent with the same key; the broker's with the same key; this
agent's with another key; the broker's newest. A job that may save gets this agent's version in place. A job that may
not, or comes while another has it, gets a copy. A cache is saved only by a job whose command has ended by itself.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio
from msgspec import Struct

from airunner.agent.artifacts.flow import leaves
from airunner.agent.artifacts.uploading import FINAL, Uplink, Upload
from airunner.agent.caches.fetching import fetch, manifest_of
from airunner.agent.caches.keys import NO_FILES, key_of
from airunner.agent.caches.manifest import Manifest, decoded, encoded
from airunner.agent.caches.placing import NotPlaced, put, take
from airunner.agent.caches.saving import PLATFORM, Source, TooLarge, save
from airunner.agent.caches.scanning import TooManyFiles, scan
from airunner.agent.caches.shelf import BEGAN, MANIFEST, Shelf, Version, facts_of, place_of
from airunner.agent.caches.writing import Writer, copy
from airunner.agent.flag import Flag, cancelled_by
from airunner.agent.workspace.workspace import Workspace
from airunner.protocol.blobs import Slice
from airunner.protocol.cacherequests import GetCache, PutCache
from airunner.protocol.caches import Cache, CacheEntry, SaveWhen
from airunner.protocol.errors import BadRequest, Forbidden, Forged, NoBlobs, NoSpace, PeerError
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.replies import BlobsGot, JobLease
from airunner.protocol.requests import GetBlob
from airunner.protocol.sizes import bytes_text
from airunner.transport.backoff import retry

CACHE_S_MAX: Final = 600.0  # to get one cache, or to save it
ASK_S: Final = 30.0  # for the broker to say whether it has a cache
_BY_ITSELF: Final = (None, Reason.EXIT_CODE, Reason.ARTIFACT_MISSING)
_KILLED: Final = 128  # exit codes from here on are those of shells whose command was killed
_FINAL: Final = (*FINAL, NoSpace, Forbidden)  # a cache that the broker does not take now is saved by another job
_TROUBLES: Final = (OSError, PeerError, NotPlaced, TooManyFiles, TooLarge)

T = TypeVar("T")


class _Used(Struct):
    """Cache that the job uses; `folder`: of the shelf, for its folders when they are not in the workspace.

    `last`: the version at the broker from which it comes, if any.
    """

    cache: Cache
    place: str
    key: str
    folder: Path
    began_s: float
    came: tuple[int, str] | None = None  # size of what was restored, and where it came from
    last: Manifest | None = None
    began_ns: int = 0
    whole: bool = False  # all its folders are in the workspace


class CacheStep:
    """Cache step of the attempt with the lease `lease` of a job of `tenant`; `say` writes a line into its log.

    Open it in a block around `restore` and `save`: at the end of it, what the job has used and not saved is removed.
    """

    def __init__(
        self,
        lease: JobLease,
        workspace: Workspace,
        cancelled: Flag,
        shelf: Shelf,
        uplink: Uplink,
        tenant: str,
        say: Callable[[str], None],
    ) -> None:
        self._lease = lease
        self._cancelled = cancelled
        self._tenant = tenant
        self._workspace = workspace
        self._shelf = shelf
        self._uplink = uplink
        self._offload = uplink.offload
        self._say = say
        self._uid = os.geteuid() if workspace.user is None else workspace.user.uid
        self._used: list[_Used] = []

    async def restore(self) -> None:
        """Get the caches; a job that cannot get one begins without it. Raises `LeaseEnded`, in a group."""
        for cache in self._lease.spec.caches:
            async with self._bounded(cache, "not restored"):
                await self._begin(cache)
        for used in self._used:
            if used.cache.restore:
                async with self._bounded(used.cache, "not restored"):
                    used.came = await self._get(used)
            async with self._bounded(used.cache, "neither restored nor saved"):
                await self._place(used)

    async def save(self, result: Result) -> None:
        """Save the caches, as far as the job's result allows it. Raises `LeaseEnded`, in a group."""
        by_itself = result.reason in _BY_ITSELF and result.exit_code is not None and result.exit_code < _KILLED
        for used in self._used:
            when = used.cache.save
            done = result.state is JobState.COMPLETED if when is SaveWhen.ON_SUCCESS else by_itself
            if used.whole and done and when is not SaveWhen.NEVER:
                async with self._bounded(used.cache, "not saved"):
                    await self._save(used)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for used in self._used:
            with anyio.CancelScope(shield=True):
                await self._shelf.remove(used.folder)

    @asynccontextmanager
    async def _bounded(self, cache: Cache, what: str) -> AsyncGenerator[None]:
        """Say what goes wrong while the block runs, which is ended after `CACHE_S_MAX`, or if the job is cancelled."""
        why = ""
        try:
            with cancelled_by(self._cancelled, timeout_s=CACHE_S_MAX) as scope:
                yield
            if scope.cancelled_caught and not self._cancelled.is_set():
                why = f"it has taken longer than {CACHE_S_MAX:g} s"
        except* NoBlobs:
            pass  # what this agent has is all that the cache can have
        except* _TROUBLES as errors:
            why = _reason(next(leaves(errors)))
        if why:
            self._say(f"cache {cache.name}: {what}: {why}")

    async def _begin(self, cache: Cache) -> None:
        key = await self._offload(lambda: key_of(self._workspace.checkout, cache.key))
        if cache.key and key == NO_FILES:
            self._say(f"cache {cache.name}: its key is that of no files: there is none like {', '.join(cache.key)}")
        place = place_of(self._tenant, self._lease.spec.queue, cache.label, cache.name, *cache.paths)
        self._used.append(_Used(cache, place, key, self._shelf.begin(), anyio.current_time()))

    async def _place(self, used: _Used) -> None:
        """Move the folders to their paths in the workspace."""
        for number, path in enumerate(used.cache.paths):
            folder = used.folder / str(number)
            if folder.exists():
                put(folder, self._workspace, path)
        began = used.folder / BEGAN
        began.unlink(missing_ok=True)
        began.touch()
        used.began_ns = began.stat().st_ctime_ns
        used.whole = True
        if used.came is not None:
            size_bytes, how = used.came
            took_s = anyio.current_time() - used.began_s
            self._say(f"cache {used.cache.name}: restored {bytes_text(size_bytes)} in {took_s:.1f} s ({how})")
        elif used.cache.restore:
            self._say(f"cache {used.cache.name}: none yet in queue {self._lease.spec.queue}, label {used.cache.label}")

    async def _get(self, used: _Used) -> tuple[int, str] | None:
        """Get a version into the folder; return its size and where it comes from, or None: there is none."""
        answered, entry = await self._entry(used)
        here = self._shelf.version(used.place)
        if here is not None and answered and here.shared:
            exact = here.facts.key == used.key
            if entry is None or (exact and entry.key != used.key):  # it was removed at the broker
                await self._shelf.drop(used.place)
                here = None
        exact_here = here is not None and here.facts.key == used.key
        exact_there = entry is not None and entry.key == used.key
        if (
            here is not None
            and (exact_here or not exact_there)
            and (size_bytes := await self._get_here(used)) is not None
        ):
            return size_bytes, f"{'exact' if exact_here else 'of another key'}, of this agent"
        if entry is not None and (size_bytes := await self._fetch(used, entry)) is not None:
            return size_bytes, "exact" if exact_there else "of another key"
        return None

    async def _get_here(self, used: _Used) -> int | None:
        """Get this agent's version, in place or as a copy; return its size, or None: there is none."""
        version = self._shelf.version(used.place)
        if version is None:
            return None
        try:
            taken = None if used.cache.save is SaveWhen.NEVER else self._shelf.taken(used.place, self._uid)
            if taken is None:
                await self._copy(used, version)
        except (FileNotFoundError, NotADirectoryError):  # it was removed from the disk, or a part of it
            await self._shelf.drop(used.place)
            return None
        if taken is not None:
            empty, used.folder = used.folder, taken
            await self._shelf.remove(empty)
        with suppress(OSError, Forged):
            used.last = decoded((used.folder / MANIFEST).read_bytes())
        return version.facts.content_bytes

    async def _copy(self, used: _Used, version: Version) -> None:
        """Copy a version, which stays as it is. Raises `OSError`, `TooManyFiles`."""
        writer = Writer(used.folder, self._workspace.user)

        def copied() -> None:
            version.folder.stat()
            scanned = scan(version.folder, len(used.cache.paths), self._owner(version.facts.uid))
            copy(scanned.entries, version.folder, writer)
            with suppress(FileNotFoundError):
                (used.folder / MANIFEST).write_bytes((version.folder / MANIFEST).read_bytes())

        async with self._shelf.reading(version), self._all_or_nothing(used):
            await self._offload(copied)

    @asynccontextmanager
    async def _all_or_nothing(self, used: _Used) -> AsyncGenerator[None]:
        """Replace the folder by an empty one if the block, which fills it, fails."""
        try:
            yield
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._shelf.remove(used.folder)
            used.folder = self._shelf.begin()
            raise

    async def _entry(self, used: _Used) -> tuple[bool, CacheEntry | None]:
        """Ask the broker for a version; return whether it has replied, and the version, if there is one."""
        cache = used.cache
        request = GetCache(lease=self._lease.ref, label=cache.label, name=cache.name, key=used.key)
        with anyio.move_on_after(ASK_S):
            try:
                return True, (await self._asked(lambda: self._uplink.channel.ask(request))).entry
            except (BadRequest, NoBlobs):  # it knows no caches, or keeps none
                pass
        return False, None

    async def _fetch(self, used: _Used, entry: CacheEntry) -> int | None:
        """Read a version from the broker; return its size, or None: it is of another kind."""
        async with self._all_or_nothing(used):
            manifest = await manifest_of(entry.index, self._blobs, self._offload)
            if (manifest.platform, manifest.paths) != (PLATFORM, used.cache.paths):
                return None
            await fetch(manifest, used.folder, self._workspace.user, self._blobs, self._offload)
        used.last = manifest
        return manifest.size_bytes

    async def _blobs(self, request: GetBlob) -> BlobsGot:
        return await self._asked(lambda: self._uplink.channel.ask(request))

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        return await retry(ask, self._uplink.backoff(), lambda _: None, final=_FINAL)

    async def _save(self, used: _Used) -> None:
        """Put the folders back on the shelf, then send what the broker lacks of them."""
        cache = used.cache
        used.whole = False
        found = [take(self._workspace, path, used.folder / str(at)) for at, path in enumerate(cache.paths)]
        if not any(found):
            self._say(f"cache {cache.name}: nothing to save: the job has left none of {', '.join(cache.paths)}")
            return
        scanned = await self._offload(lambda: scan(used.folder, len(cache.paths), self._owner(self._uid)))
        of = (self._tenant, self._lease.spec.queue, cache.label, cache.name, *cache.paths)
        facts = facts_of(of, used.key, scanned.size_bytes, len(scanned.entries), self._uid)
        async with self._shelf.kept(used.place, used.folder, facts) as version:
            source = Source(version.folder, scanned, used.key, cache.paths, used.last, used.began_ns)
            upload = Upload(self._uplink, self._lease.ref, self._say, f"cache {cache.name}: its files", _FINAL)
            manifest = await save(source, self._uplink, upload, self._putting(used))
            if (now := manifest or used.last) is not None:
                version.note(await self._offload(lambda: encoded(now)))
            if manifest is not None:
                self._say(f"cache {cache.name}: saved {bytes_text(upload.sent_bytes)} new")

    def _owner(self, uid: int) -> int | None:
        """Return the user whose hard links alone are cached; None: jobs are the agent's own user."""
        return None if self._workspace.user is None else uid

    def _putting(self, used: _Used) -> Callable[[tuple[Slice, ...], bytes, int], Awaitable[object]]:
        async def putting(index: tuple[Slice, ...], ids: bytes, size_bytes: int) -> object:
            cache = used.cache
            request = PutCache(
                lease=self._lease.ref,
                label=cache.label,
                name=cache.name,
                key=used.key,
                size_bytes=size_bytes,
                index=index,
                ids=ids,
            )
            return await self._asked(lambda: self._uplink.channel.ask(request))

        return putting


def _reason(error: Exception) -> str:
    """Return why a cache is not restored or saved."""
    match error:
        case PeerError():
            return error.message
        case OSError():
            return error.strerror or str(error)
        case _:
            return str(error)
