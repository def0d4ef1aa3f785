"""A sweep beside jobs that claim, put and lose blobs, in 1,000 orders: none is deleted that a job needs, none stays."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from airunner.broker.blobs.store import BlobStore
from airunner.protocol.blobs import Blob, packed
from airunner.protocol.errors import Busy
from airunner.protocol.names import JobName, RequestId
from tests.broker.blobs.interleaving import InterleavedObjects, Interleaving

SEEDS = 1_000
BLOBS = [packed(b"%d" % number) for number in range(4)]
TENANT = "t"
Claims = dict[str, set[bytes]]  # what each job was told that it has


class LooksFirst(BlobStore):
    """A lie: blobs are looked up before the claim is written."""

    def claim(self, tenant: str, job_id: JobName, request_id: RequestId, ids: Sequence[bytes]) -> tuple[int, ...]:
        missing = tuple(place for place, blob in enumerate(ids) if not self._objects.has(f"t/blobs/{_place(blob)}"))
        super().claim(tenant, job_id, request_id, ids)
        return missing


class LooksForNoMark(BlobStore):
    """A lie: a sweep is not seen."""

    def claim(self, tenant: str, job_id: JobName, request_id: RequestId, ids: Sequence[bytes]) -> tuple[int, ...]:
        assert tenant == TENANT
        self._objects.put({f"t/claims/{job_id}/{request_id.hex()}": b"".join(ids)})
        return tuple(place for place, blob in enumerate(ids) if not self._objects.has(f"t/blobs/{_place(blob)}"))


class ReadsClaimsOnce(BlobStore):
    """A lie: the sweep deletes what was unclaimed before it has written its mark."""

    def _read_claims(self, folder: str, seen: set[str], claimed: set[bytes]) -> None:
        if not seen:
            super()._read_claims(folder, seen, claimed)


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


def test_a_sweep_that_ended_in_the_middle_is_mended_by_the_next() -> None:
    objects = InterleavedObjects(Interleaving(0))
    store = BlobStore(objects)
    store.put(TENANT, [BLOBS[0]])
    objects.stored["t/sweeping/alone"] = b""
    with pytest.raises(Busy):
        store.claim(TENANT, "job", RequestId(bytes(16)), [BLOBS[0].id])
    store.sweep(TENANT)
    assert store.claim(TENANT, "job", RequestId(bytes(16)), [BLOBS[0].id]) == ()
