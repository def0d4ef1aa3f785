"""A sweep beside jobs that claim, put and lose blobs, and save caches of them, in 1,000 orders each.

No blob is deleted that a job or a version of a cache needs, and none stays that nothing needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random

import msgspec
import pytest

from airunner.broker.blobs.caches import CacheStore, Place, Saved, claims_in
from airunner.broker.blobs.folders import ids_in
from airunner.broker.blobs.objects import Objects
from airunner.broker.blobs.store import DEAD_S, SWEEP_S_MAX, BlobStore
from airunner.protocol.blobs import Blob, Slice, packed
from airunner.protocol.errors import BadRequest, Busy
from airunner.protocol.names import JobName, RequestId
from tests.broker.blobs.interleaving import InterleavedObjects, Interleaving

SEEDS = 1_000
BLOBS = [packed(b"%d" % number) for number in range(4)]
TENANT = "t"
Claims = dict[str, set[bytes]]  # what each job was told that it has


class LooksFirst(BlobStore):
    """A lie: blobs are looked up before the claim is written."""

    def claim(self, tenant: str, job_id: JobName, request_id: RequestId, ids: Sequence[bytes]) -> tuple[int, ...]:
        missing = self._objects.missing([f"t/blobs/{_place(blob)}" for blob in ids])
        super().claim(tenant, job_id, request_id, ids)
        return missing


class LooksForNoMark(BlobStore):
    """A lie: a sweep is not seen."""

    def claim(self, tenant: str, job_id: JobName, request_id: RequestId, ids: Sequence[bytes]) -> tuple[int, ...]:
        assert tenant == TENANT
        self._objects.put({f"t/claims/{job_id}/{request_id.hex()}": b"".join(ids)})
        return self._objects.missing([f"t/blobs/{_place(blob)}" for blob in ids])


class ReadsClaimsOnce(BlobStore):
    """A lie: the sweep deletes what was unclaimed before it has written its mark."""

    def _read_claims(self, folder: str, seen: set[str], claimed: set[bytes]) -> None:
        if not seen:
            super()._read_claims(folder, seen, claimed)


class ReadsCachesFirst(BlobStore):
    """A lie: versions are read before the claims of the jobs that save them."""

    def _read_claims(self, folder: str, seen: set[str], claimed: set[bytes]) -> None:
        for key in self._objects.keys(f"{folder}/caches"):
            seen.add(key)
            claimed.update(ids_in(claims_in(self._objects.get(key) or b"")))
        for kind in ("claims", "saving"):
            for key in self._objects.keys(f"{folder}/{kind}"):
                claimed.update(ids_in(self._objects.get(key) or b""))


class ReadsNoCaches(BlobStore):
    """A lie: what versions need does not count."""

    def _read_claims(self, folder: str, seen: set[str], claimed: set[bytes]) -> None:
        super()._read_claims(folder, {*seen, *self._objects.keys(f"{folder}/caches")}, claimed)


class _SavesAtOnce(CacheStore):
    def save(self, tenant: str, request_id: RequestId, saved: Saved, now_ms: int) -> None:
        ids = saved.ids + saved.index[0].blob
        if not self._claims(tenant, saved.job_id, ids):
            raise BadRequest(request_id.hex())
        name = f"t/caches/q/l/n/{saved.place.key}/{now_ms}-0-{saved.job_id}"
        self._objects.put({name: msgspec.msgpack.encode((saved.index, ids))})


class SavesAtOnce(BlobStore):
    """A lie: a job's claims are read, and then the version is written, without a word in between."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self.caches = _SavesAtOnce(objects)


class _AsksNoClaims(CacheStore):
    def _claims(self, tenant: str, job_id: JobName, ids: bytes) -> bool:
        super()._claims(tenant, job_id, ids)
        return True


class AsksNoClaims(BlobStore):
    """A lie: a version is written whatever its job has claimed, or has lost meanwhile."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self.caches = _AsksNoClaims(objects)


def _place(blob: bytes) -> str:
    return f"{blob.hex()[:2]}/{blob.hex()}"


def broken(kind: type[BlobStore], seed: int) -> str | None:
    """Run a seed; return what is wrong afterwards."""
    random = Random(seed)
    interleaving = Interleaving(seed)
    objects = InterleavedObjects(interleaving)
    store = kind(objects)
    for blob in random.sample(BLOBS, 2):
        store.put(TENANT, [blob])  # left by jobs that are gone
    has: Claims = {}

    def job(name: str, wanted: list[Blob], *, leaves: bool) -> None:
        request_id = RequestId(name.encode().ljust(16))
        while True:
            try:
                missing = store.claim(TENANT, name, request_id, [blob.id for blob in wanted])
                break
            except Busy:
                continue
        for place in missing:
            store.put(TENANT, [wanted[place]])
        has[name] = {blob.id for blob in wanted}
        if leaves:
            del has[name]
            store.forget(TENANT, name)

    def janitor() -> None:
        for _ in range(2):
            store.sweep(TENANT)

    interleaving.add(janitor)
    for name in ("a", "b", "c"):
        wanted, leaves = random.sample(BLOBS, 2), random.random() < 0.4
        interleaving.add(lambda name=name, wanted=wanted, leaves=leaves: job(name, wanted, leaves=leaves))
    interleaving.run()
    needed = set[bytes]().union(*has.values())
    stored = {bytes.fromhex(key.rpartition("/")[2]) for key in objects.stored if "/blobs/" in key}
    if needed - stored:
        return "a blob was deleted that a job needs"
    store.sweep(TENANT)
    stored = {bytes.fromhex(key.rpartition("/")[2]) for key in objects.stored if "/blobs/" in key}
    if stored != needed:
        return "a blob has stayed that no job needs"
    return None if not any("/sweeping/" in key for key in objects.stored) else "the sweep's mark has stayed"


def test_no_order_of_claims_and_sweeps_loses_or_leaves_a_blob() -> None:
    for seed in range(SEEDS):
        assert broken(BlobStore, seed) is None, f"seed {seed}"


@pytest.mark.parametrize("lie", [LooksFirst, LooksForNoMark, ReadsClaimsOnce])
def test_these_orders_find_each_lie(lie: type[BlobStore]) -> None:
    assert any(broken(lie, seed) for seed in range(SEEDS))


def torn(kind: type[BlobStore], seed: int) -> str | None:
    """Run a seed in which jobs save caches and are removed, by another broker too; return what is wrong afterwards."""
    random = Random(seed)
    interleaving = Interleaving(seed, stays=0.85)
    objects = InterleavedObjects(interleaving)
    store = kind(objects)
    ready = list[str]()  # jobs that may end

    def job(name: str, key: str, wanted: list[Blob]) -> None:
        request_id = RequestId(name.encode().ljust(16))
        with suppress(Busy, BadRequest):
            missing = store.claim(TENANT, name, request_id, [blob.id for blob in wanted])
            for place in missing:
                store.put(TENANT, [wanted[place]])
            ready.append(name)
            saved = Saved(Place("q", "l", "n", key), name, 0, (Slice(wanted[0].id, 0, 1),), wanted[1].id)
            store.caches.save(TENANT, request_id, saved, 1)

    def janitor() -> None:
        for _ in range(2):
            store.sweep(TENANT)

    def remover() -> None:
        for _ in range(20):
            interleaving.pause()
            if ready:
                store.forget(TENANT, ready.pop())

    interleaving.add(janitor)
    interleaving.add(remover)
    for name in ("a", "b"):
        key, wanted = random.choice("xy"), random.sample(BLOBS, 2)
        interleaving.add(lambda name=name, key=key, wanted=wanted: job(name, key, wanted))
    interleaving.run()
    for version in [key for key in objects.stored if "/caches/" in key]:
        if any(f"t/blobs/{_place(blob)}" not in objects.stored for blob in ids_in(claims_in(objects.stored[version]))):
            return "a version has lost a blob"
    for name in ("a", "b"):
        store.forget(TENANT, name)
    store.caches.remove(TENANT, [Place("q", "l", "n", key) for key in "xy"])
    store.caches.forget_old(TENANT, 1)
    store.sweep(TENANT)
    return "something has stayed" if objects.stored else None


def test_no_order_of_saves_and_sweeps_tears_a_version_or_leaves_a_blob() -> None:
    for seed in range(SEEDS):
        assert torn(BlobStore, seed) is None, f"seed {seed}"


@pytest.mark.parametrize("lie", [ReadsCachesFirst, ReadsNoCaches, SavesAtOnce, AsksNoClaims])
def test_these_orders_find_each_lie_about_caches(lie: type[BlobStore]) -> None:
    assert any(torn(lie, seed) for seed in range(SEEDS))


def test_a_sweep_that_ended_in_the_middle_is_mended_by_the_next() -> None:
    objects = InterleavedObjects(Interleaving(0))
    store = BlobStore(objects)
    store.put(TENANT, [BLOBS[0]])
    objects.stored["t/sweeping/alone/0"] = b""
    with pytest.raises(Busy):
        store.claim(TENANT, "job", RequestId(bytes(16)), [BLOBS[0].id])
    store.sweep(TENANT)
    assert store.claim(TENANT, "job", RequestId(bytes(16)), [BLOBS[0].id]) == ()


class Killed(Exception):
    """The broker was killed."""


class Clocked(InterleavedObjects):
    """Objects of brokers that have one clock, which `at_mark` moves once a sweep has written its mark, or ends it."""

    def __init__(self) -> None:
        super().__init__(Interleaving(0))
        self.now_s = 0.0
        self.at_mark = 0.0

    def put(self, objects: Mapping[str, bytes]) -> None:
        super().put(objects)
        if any("/sweeping/" in key for key in objects):
            self.now_s += self.at_mark
            if not self.at_mark:
                raise Killed

    def broker(self) -> BlobStore:
        return BlobStore(self, now_s=lambda: self.now_s)


def test_the_mark_of_a_broker_that_was_killed_in_a_sweep_stops_others_for_a_while_only() -> None:
    objects = Clocked()
    killed, other = objects.broker(), objects.broker()
    killed.put(TENANT, BLOBS[:1])
    with pytest.raises(Killed):
        killed.sweep(TENANT, "killed")
    for late_s in (0.0, DEAD_S - 1):
        objects.now_s = late_s
        with pytest.raises(Busy):
            other.claim(TENANT, "job", RequestId(bytes(16)), [BLOBS[0].id])
    objects.now_s = DEAD_S
    assert other.claim(TENANT, "job", RequestId(bytes(16)), [BLOBS[0].id]) == ()
    killed.put(TENANT, BLOBS[1:2])
    with pytest.raises(Killed):  # the next mark is a new one
        killed.sweep(TENANT, "killed")
    with pytest.raises(Busy):
        other.claim(TENANT, "job", RequestId(bytes(16)), [BLOBS[0].id])
    objects.at_mark = 1
    assert killed.sweep(TENANT, "killed") == 1
    assert not any("/sweeping/" in key for key in objects.stored), "its own next sweep removes it"


def test_a_sweep_that_was_stopped_for_long_deletes_nothing() -> None:
    objects = Clocked()
    objects.broker().put(TENANT, BLOBS[:1])
    objects.at_mark = SWEEP_S_MAX + 1
    assert objects.broker().sweep(TENANT) == 0
    objects.at_mark = SWEEP_S_MAX
    assert objects.broker().sweep(TENANT) == 1
    assert SWEEP_S_MAX < DEAD_S
