"""Cache store: versions of jobs' caches as objects, beside the blobs that they need; each tenant's apart.

```
 TENANT/caches/QUEUE/LABEL/NAME/KEY/NUMBER-SIZE-JOB   a version: the slices of its manifest, and the ids that it needs
 TENANT/used/QUEUE/LABEL/NAME/KEY/HOUR                 the last hour in which a version of the key was restored
 TENANT/saving/DAY/REQUEST                             ids of a version that is being saved
```

A version is one object that is never changed, so its writer leaves a whole one or none; of several the newest counts,
and the others of its key are deleted after it was written. NUMBER is the instant of saving (ms), or one more than the
newest number of the name: an order that does not depend on how well the clocks of several brokers agree.

A version claims its blobs as a job does. It takes them over from the job that saves it: the ids are written below
`saving` *before* the job's claims are read, and stay until the version is written. A sweep reads claims, `saving` and
versions in this order: it sees the ids in one of them. See `store`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import Struct

from airunner.broker.blobs.folders import claims_of, folder_of, ids_in
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.caches import CacheEntry, CacheIndex, CacheSummary
from airunner.protocol.errors import BadRequest, Busy, NoSpace
from airunner.protocol.names import JobId, JobName, RequestId

if TYPE_CHECKING:
    from airunner.broker.blobs.objects import Objects

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
DAY_DIGITS: Final = 6
NUMBER_DIGITS: Final = 16
LOOKS_MAX: Final = 4  # for a version to restore: each time the one that was found was replaced meanwhile
VERSIONS_MAX: Final = 4_096  # of a tenant; all are listed when one is saved, in some 0.1 s
CACHE_BYTES_MAX: Final = 20 << 30  # of a tenant's versions, unless `--cache-gib` says otherwise


class Place(NamedTuple):
    """Place of a version among those of its tenant."""

    queue: str
    label: str
    name: str
    key: str


class Version(NamedTuple):
    """Version of a cache, as the name of its object has it."""

    place: Place
    saved_ms: int
    size_bytes: int
    job_id: str
    object: str


class Saved(Struct, frozen=True):
    """Version to save: the job, how many bytes its files have, its manifest's slices and the ids of all blobs."""

    place: Place
    job_id: JobName
    size_bytes: int
    index: CacheIndex
    ids: bytes


class CacheStore:
    """Cache store in `objects`; a tenant's versions have `bytes_max` bytes at most. Any thread may call it.

    Methods raise `Busy`: the objects cannot be reached now; `NoSpace`: there is no room for more.
    """

    def __init__(self, objects: Objects, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._objects = objects
        self._bytes_max = bytes_max

    def find(self, tenant: str, place: Place, now_ms: int) -> CacheEntry | None:
        """Find the version to restore: the newest of the key, or else of the name. Raises `Busy`: it changes now."""
        folder = _versions_of(tenant)
        for _ in range(LOOKS_MAX):
            versions = list(_listed(self._objects.keys(f"{folder}/{_path(place[:3])}")))
            found = max([each for each in versions if each.place == place] or versions, key=_age, default=None)
            if found is None:
                return None
            content = self._objects.get(found.object)
            if content is not None:
                self._note_use(tenant, found.place, now_ms // HOUR_MS)
                return _entry(found, content)
        raise Busy

    def save(self, tenant: str, request_id: RequestId, saved: Saved, now_ms: int) -> None:
        """Save a version, and drop those that are too many. Its place has the other versions of its key no longer.

        Raises `BadRequest`: the job has not claimed all of the blobs; `NoSpace`: it is larger than all may be.
        """
        if saved.size_bytes > self._bytes_max:
            raise NoSpace(f"the cache has {saved.size_bytes} bytes, and those of a tenant {self._bytes_max} at most")
        ids = saved.ids + b"".join(piece.blob for piece in saved.index)
        saving = f"{folder_of(tenant)}/saving/{now_ms // DAY_MS:0{DAY_DIGITS}}/{request_id.hex()}"
        self._objects.put({saving: ids})
        if not self._claims(tenant, saved.job_id, ids):
            self._objects.delete([saving])
            raise BadRequest("the job has not claimed all of the cache's blobs")
        name = f"{_versions_of(tenant)}/{_path(saved.place[:3])}"
        newest = max((each.saved_ms for each in _listed(self._objects.keys(name))), default=0)
        number = f"{max(now_ms, newest + 1):0{NUMBER_DIGITS}}-{saved.size_bytes}-{saved.job_id}"
        folder = f"{name}/{saved.place.key}"
        self._objects.put({f"{folder}/{number}": msgspec.msgpack.encode((saved.index, ids))})
        versions = sorted(_listed(self._objects.keys(folder)), key=_age)
        self._objects.delete([each.object for each in versions[:-1]])
        self._objects.delete([saving])
        self.trim(tenant)

    def _claims(self, tenant: str, job_id: JobName, ids: bytes) -> bool:
        """Check whether a job has claimed blobs."""
        claimed = set[bytes]()
        for key in self._objects.keys(claims_of(tenant, job_id)):
            claimed.update(ids_in(self._objects.get(key) or b""))
        return claimed.issuperset(ids_in(ids))

    def summaries(self, tenant: str) -> list[CacheSummary]:
        """List the versions, by place."""
        used = self._uses(tenant)
        return [_summary(each, used) for each in self._current(tenant)]

    def remove(self, tenant: str, places: Iterable[Place]) -> int:
        """Remove the versions at these places; return how many there were."""
        wanted = set(places)
        return self._drop(tenant, [each for each in self._current(tenant) if each.place in wanted])

    def trim(self, tenant: str) -> None:
        """Drop versions, those first that were not used for the longest time, until the others have room."""
        used = self._uses(tenant)
        versions = sorted(self._current(tenant), key=lambda each: (_used_ms(each, used), _age(each)))
        left = sum(each.size_bytes for each in versions)
        dropped: list[Version] = []
        for version in versions:
            if left <= self._bytes_max and len(versions) - len(dropped) <= VERSIONS_MAX:
                break
            dropped.append(version)
            left -= version.size_bytes
        self._drop(tenant, dropped)

    def forget_old(self, tenant: str, before_day: int) -> None:
        """Forget what was being saved before a day, and the uses of keys that have no version any more."""
        folder, old = f"{folder_of(tenant)}/saving", f"{before_day:0{DAY_DIGITS}}"
        self._objects.delete([key for key in self._objects.keys(folder) if key.split("/")[2] < old])
        uses = [*self._objects.keys(_uses_of(tenant))]
        places = {each.place for each in self._current(tenant)}
        self._objects.delete([key for key in uses if _place_in(key) not in places])

    def _drop(self, tenant: str, versions: Sequence[Version]) -> int:
        self._objects.delete([each.object for each in versions])
        for version in versions:
            self._objects.delete(list(self._objects.keys(f"{_uses_of(tenant)}/{_path(version.place)}")))
        return len(versions)

    def _current(self, tenant: str) -> list[Version]:
        """List the newest version of each key, by place."""
        newest: dict[Place, Version] = {}
        for version in sorted(_listed(self._objects.keys(_versions_of(tenant))), key=_age):
            newest[version.place] = version
        return [newest[place] for place in sorted(newest)]

    def _note_use(self, tenant: str, place: Place, hour: int) -> None:
        """Note that a version was used, once an hour."""
        folder = f"{_uses_of(tenant)}/{_path(place)}"
        before = list(self._objects.keys(folder))
        if f"{folder}/{hour}" not in before:
            self._objects.put({f"{folder}/{hour}": b""})
            self._objects.delete(before)

    def _uses(self, tenant: str) -> dict[Place, int]:
        """List when versions were used (ms)."""
        used: dict[Place, int] = {}
        for key in self._objects.keys(_uses_of(tenant)):
            place, hour = _place_in(key), key.rpartition("/")[2]
            if hour.isdecimal():
                used[place] = max(used.get(place, 0), int(hour) * HOUR_MS)
        return used


def claims_in(content: bytes) -> bytes:
    """Return the ids that a version needs, one after the other; empty: it is damaged, and nobody can restore it."""
    with suppress(*UNDECODABLE):
        return msgspec.msgpack.decode(content, type=tuple[CacheIndex, bytes])[1]
    return b""


def _entry(version: Version, content: bytes) -> CacheEntry | None:
    try:
        index, _ = msgspec.msgpack.decode(content, type=tuple[CacheIndex, bytes])
    except UNDECODABLE:
        return None
    return CacheEntry(
        key=version.place.key,
        job_id=JobId(version.job_id),
        saved_ms=version.saved_ms,
        size_bytes=version.size_bytes,
        index=index,
    )


def _summary(version: Version, used: dict[Place, int]) -> CacheSummary:
    return CacheSummary(
        **version.place._asdict(),
        job_id=JobId(version.job_id),
        saved_ms=version.saved_ms,
        used_ms=_used_ms(version, used),
        size_bytes=version.size_bytes,
    )


def _used_ms(version: Version, used: dict[Place, int]) -> int:
    return max(version.saved_ms, used.get(version.place, 0))


def _age(version: Version) -> tuple[int, str]:
    return version.saved_ms, version.object


def _listed(keys: Iterable[str]) -> Iterator[Version]:
    """Yield the versions in a list of objects."""
    for key in keys:
        number, size, job_id = [*key.rpartition("/")[2].split("-", 2), "", ""][:3]
        if number.isdecimal() and size.isdecimal():
            yield Version(_place_in(key), int(number), int(size), job_id, key)


def _versions_of(tenant: str) -> str:
    return f"{folder_of(tenant)}/caches"


def _uses_of(tenant: str) -> str:
    return f"{folder_of(tenant)}/used"


def _path(place: Sequence[str]) -> str:
    return "/".join((folder_of(place[0]), *place[1:]))


def _place_in(key: str) -> Place:
    queue, label, name, key_ = (*key.split("/")[2:6], "", "", "", "")[:4]
    return Place(queue.replace("=", "/"), label, name, key_)
