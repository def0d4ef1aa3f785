"""Versions of caches: which is restored, when one is replaced, dropped or removed, and what a writer has to have."""

from __future__ import annotations

import pytest
from obstore.store import MemoryStore

from airunner.broker.blobs import caches
from airunner.broker.blobs.caches import DAY_MS, HOUR_MS, Place, Saved
from airunner.broker.blobs.objects import StoredObjects
from airunner.broker.blobs.store import BlobStore
from airunner.protocol.blobs import Slice, packed
from airunner.protocol.errors import BadRequest, Busy, NoSpace, NotFound
from airunner.protocol.names import RequestId

TENANT = "a/team"
MANIFEST, PIECE = packed(b"manifest"), packed(b"piece")
INDEX = (Slice(MANIFEST.id, 0, 8),)
REQUEST = RequestId(bytes(16))
GO = Place("ci/fast", "default", "go", "aa")
NOW_MS = 100 * DAY_MS


class Stage:
    """A blob store, and jobs that have claimed and put all that they save."""

    def __init__(self, bytes_max: int = 1 << 30) -> None:
        self.objects = StoredObjects(MemoryStore())
        self.store = BlobStore(self.objects, bytes_max)
        self.caches = self.store.caches

    def save(
        self, place: Place, job: str = "job-1", *, size: int = 8, now_ms: int = NOW_MS, tenant: str = TENANT
    ) -> None:
        self.store.claim(tenant, job, REQUEST, [MANIFEST.id, PIECE.id])
        self.store.put(tenant, [MANIFEST, PIECE])
        self.caches.save(tenant, REQUEST, Saved(place, job, size, INDEX, PIECE.id), now_ms)

    def found(self, place: Place, now_ms: int = NOW_MS, tenant: str = TENANT) -> str | None:
        """The job whose version is restored."""
        entry = self.caches.find(tenant, place, now_ms)
        return None if entry is None else entry.job_id

    def listed(self) -> list[str]:
        return [cache.job_id for cache in self.caches.summaries(TENANT)]


def test_the_version_of_the_key_is_restored_or_else_the_newest_of_the_name() -> None:
    stage = Stage()
    assert stage.found(GO) is None
    stage.save(GO, "first")
    stage.save(GO._replace(key="bb"), "second", now_ms=NOW_MS + 1)
    assert (stage.found(GO), stage.found(GO._replace(key="bb"))) == ("first", "second")
    assert stage.found(GO._replace(key="cc")) == "second"
    entry = stage.caches.find(TENANT, GO, NOW_MS)
    assert entry is not None
    assert (entry.key, entry.size_bytes, entry.index, entry.saved_ms) == ("aa", 8, INDEX, NOW_MS)


def test_a_cache_of_another_tenant_queue_label_or_name_is_another() -> None:
    stage = Stage()
    stage.save(GO)
    others = [GO._replace(queue="ci"), GO._replace(label="release"), GO._replace(name="g"), GO._replace(name="go2")]
    assert [stage.found(other) for other in others] == [None] * 4
    assert stage.found(GO, tenant="a") is None


def test_a_version_replaces_that_of_its_key_also_when_the_clock_of_its_broker_is_behind() -> None:
    stage = Stage()
    stage.save(GO, "first")
    stage.save(GO, "second", now_ms=NOW_MS - HOUR_MS)
    assert (stage.found(GO), stage.listed()) == ("second", ["second"])
    stage.save(GO._replace(key="bb"), "third", now_ms=NOW_MS - HOUR_MS)
    assert stage.found(GO._replace(key="cc")) == "third"


def test_what_the_job_has_not_claimed_is_in_no_version_and_the_last_one_stays() -> None:
    stage = Stage()
    stage.save(GO, "first")
    stage.store.claim(TENANT, "second", REQUEST, [PIECE.id])
    with pytest.raises(BadRequest, match="claimed"):
        stage.caches.save(TENANT, REQUEST, Saved(GO, "second", 8, INDEX, PIECE.id), NOW_MS)
    assert stage.found(GO) == "first"


def test_a_version_keeps_its_blobs_and_gives_them_up_with_its_end() -> None:
    stage = Stage()
    stage.save(GO)
    stage.store.forget(TENANT, "job-1")
    assert stage.store.sweep(TENANT) == 0
    assert len(stage.store.get(TENANT, [MANIFEST.id, PIECE.id])) == 2
    assert stage.caches.remove(TENANT, [GO, GO._replace(key="bb")]) == 1
    assert stage.store.sweep(TENANT) == 2
    with pytest.raises(NotFound):
        stage.store.get(TENANT, [PIECE.id])


def test_versions_that_were_not_used_longest_are_dropped_when_all_have_no_room() -> None:
    stage = Stage(bytes_max=30)
    keys = [GO._replace(key=key) for key in ("aa", "bb", "cc")]
    for number, place in enumerate(keys):
        stage.save(place, place.key, size=10, now_ms=NOW_MS + number)
    assert stage.found(keys[0], NOW_MS + HOUR_MS) == "aa", "it was used"
    [used, *_] = stage.caches.summaries(TENANT)
    assert used.used_ms == NOW_MS + HOUR_MS
    stage.save(GO._replace(key="dd"), "dd", size=15, now_ms=NOW_MS + 2 * HOUR_MS)
    assert stage.listed() == ["aa", "dd"]
    with pytest.raises(NoSpace, match="31 bytes"):
        stage.save(GO, "large", size=31)


def test_a_tenant_has_so_many_versions_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "VERSIONS_MAX", 2)
    stage = Stage()
    for number, key in enumerate(("aa", "bb", "cc")):
        stage.save(GO._replace(key=key), key, now_ms=NOW_MS + number)
    assert stage.listed() == ["bb", "cc"]


def test_a_use_is_recorded_once_an_hour_and_forgotten_with_its_version() -> None:
    stage = Stage()
    stage.save(GO)
    for minutes in (0, 1, 61):
        stage.found(GO, NOW_MS + minutes * 60_000)
    assert len(list(stage.objects.keys("a=team/used"))) == 1
    stage.objects.delete(list(stage.objects.keys("a=team/caches")))
    stage.objects.put({"a=team/used/odd": b"", "a=team/used/q/l/n/k/odd": b"", "a=team/caches/q/l/n/k/odd": b""})
    assert stage.caches.summaries(TENANT) == []
    stage.caches.forget_old(TENANT, 0)
    assert list(stage.objects.keys("a=team/used")) == []


def test_a_writer_that_was_killed_leaves_the_last_version_and_nothing_after_two_days() -> None:
    stage = Stage()
    stage.save(GO, "first")

    class Killed(StoredObjects):
        def put(self, objects: dict[str, bytes]) -> None:  # type: ignore[override]  # of any mapping
            if any("/caches/" in key for key in objects):
                raise KeyboardInterrupt
            super().put(objects)

    stage.caches._objects = Killed(stage.objects._store)
    with pytest.raises(KeyboardInterrupt):
        stage.save(GO, "second")
    assert stage.found(GO) == "first"
    assert len(list(stage.objects.keys("a=team/saving"))) == 1
    stage.caches.forget_old(TENANT, NOW_MS // DAY_MS)
    assert len(list(stage.objects.keys("a=team/saving"))) == 1
    stage.caches.forget_old(TENANT, NOW_MS // DAY_MS + 1)
    assert list(stage.objects.keys("a=team/saving")) == []


def test_a_damaged_version_is_none() -> None:
    stage = Stage()
    stage.save(GO)
    [version] = stage.objects.keys("a=team/caches")
    stage.objects.put({version: b"\xc1"})
    stage.store.forget(TENANT, "job-1")
    assert stage.found(GO) is None
    assert stage.store.sweep(TENANT) == 2


def test_a_version_that_is_replaced_while_it_is_looked_for_is_looked_for_again() -> None:
    stage = Stage()
    stage.save(GO, "first")
    replaced = ["second"]

    class Replaced(StoredObjects):
        def get(self, key: str) -> bytes | None:
            if "/caches/" in key and replaced:
                stage.save(GO, replaced.pop())
            return super().get(key)

    stage.caches._objects = Replaced(stage.objects._store)
    assert stage.found(GO) == "second"

    class Gone(StoredObjects):
        def get(self, key: str) -> bytes | None:
            return None if "/caches/" in key else super().get(key)

    stage.caches._objects = Gone(stage.objects._store)
    with pytest.raises(Busy):
        stage.found(GO)
