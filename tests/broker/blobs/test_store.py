"""The blob store on a real disk: what is claimed and put is there, what no job claims is deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airunner.broker.blobs.address import open_blobs
from airunner.broker.blobs.store import BlobStore
from airunner.protocol.blobs import IDS_MAX, PIECE_BYTES_MAX, Blob, blob_id, packed, unpacked
from airunner.protocol.coding import encode
from airunner.protocol.compression import frame_of
from airunner.protocol.errors import Forged, NoSpace, NotFound, OperatorError
from airunner.protocol.frames import BODY_BYTES_MAX
from airunner.protocol.names import RequestId
from airunner.protocol.replies import BlobsGot
from tests.smalldisk import small_disk

FIRST, SECOND = RequestId(bytes(16)), RequestId(bytes(15) + b"2")


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return open_blobs(str(tmp_path / "blobs"))


def test_claimed_blobs_are_read_as_they_were_put(store: BlobStore) -> None:
    blobs = [packed(piece) for piece in (b"one", b"", os.urandom(PIECE_BYTES_MAX))]
    ids = [blob.id for blob in blobs]
    assert store.claim("t/1", "job", FIRST, ids) == (0, 1, 2)
    store.put("t/1", blobs[:2])
    assert store.claim("t/1", "job", SECOND, ids) == (2,)
    store.put("t/1", blobs[2:])
    assert store.claim("t/1", "job", FIRST, ids) == ()
    assert list(store.get("t/1", ids)) == blobs
    assert [unpacked(blob) for blob in store.get("t/1", ids[:2])] == [b"one", b""]
    assert store.tenants() == ["t/1"]


def test_a_reply_has_as_many_blobs_as_fit(store: BlobStore) -> None:
    blobs = [packed(os.urandom(size)) for size in (PIECE_BYTES_MAX, PIECE_BYTES_MAX // 2, PIECE_BYTES_MAX)]
    store.put("t", blobs)
    assert store.get("t", [blob.id for blob in blobs]) == tuple(blobs[:2])
    assert store.get("t", [blobs[2].id, blob_id(b"missing"), blobs[1].id]) == (blobs[2],)
    with pytest.raises(NotFound):
        store.get("t", [blob_id(b"missing")])


@pytest.mark.parametrize("more", [(PIECE_BYTES_MAX,), (960,) * (IDS_MAX - 1)])
def test_a_reply_fits_in_a_body_whatever_the_sizes_of_its_blobs(store: BlobStore, more: tuple[int, ...]) -> None:
    blobs = [packed(os.urandom(size)) for size in (PIECE_BYTES_MAX, *more)]
    store.put("t", blobs)
    reply = encode(BlobsGot(blobs=store.get("t", [blob.id for blob in blobs])))
    assert PIECE_BYTES_MAX < len(reply) <= BODY_BYTES_MAX


def test_blobs_of_another_tenant_are_not_stored(store: BlobStore) -> None:
    blob = packed(b"secret")
    store.claim("a", "job", FIRST, [blob.id])
    store.put("a", [blob])
    assert store.claim("b", "job", FIRST, [blob.id]) == (0,)
    with pytest.raises(NotFound):
        store.get("b", [blob.id])
    store.put("b", [blob])
    store.forget("a", "job")
    assert store.sweep("a") == 1
    assert store.get("b", [blob.id]) == (blob,)


@pytest.mark.parametrize(
    "content",
    [
        frame_of(b"other"),
        b"no frame",
        frame_of(b"x" * (PIECE_BYTES_MAX + 1)),
        frame_of(b"right") + b"more",
        frame_of(b"right")[:-1],
    ],
)
def test_a_blob_with_other_content_than_its_id_says_is_refused_and_none_of_its_request_is_stored(
    store: BlobStore, content: bytes
) -> None:
    good = packed(b"good")
    with pytest.raises(Forged):
        store.put("t", [good, Blob(blob_id(b"right"), content)])
    with pytest.raises(NotFound):
        store.get("t", [good.id])


def test_a_sweep_deletes_what_no_job_claims_any_more(store: BlobStore) -> None:
    shared, first, second = map(packed, (b"shared", b"first", b"second"))
    store.claim("t", "a", FIRST, [shared.id, first.id])
    store.claim("t", "b", SECOND, [shared.id, second.id])
    store.put("t", [shared, first, second])
    assert store.sweep("t") == 0
    assert sorted(store.claimants("t")) == ["a", "b"]
    store.forget("t", "a")
    assert store.sweep("t") == 1
    assert store.claim("t", "b", SECOND, [shared.id, first.id, second.id]) == (1,)
    store.forget("t", "b")
    assert store.sweep("t") == 2
    assert store.claimants("t") == []
    assert store.sweep("t") == 0


def test_many_claims_of_a_job_are_all_kept(store: BlobStore) -> None:
    ids = [blob_id(b"%d" % number) for number in range(IDS_MAX)]
    store.claim("t", "job", FIRST, ids[:-1])
    store.claim("t", "job", SECOND, ids[-1:])
    store.put("t", [packed(b"0"), packed(b"%d" % (IDS_MAX - 1)), packed(b"unclaimed")])
    assert store.sweep("t") == 1
    assert len(store.get("t", [ids[0], ids[-1]])) == 2


def test_a_full_disk_is_refused_in_words_and_holds_no_part_of_a_blob(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "256k") as folder:
        store = open_blobs(str(folder))
        small, large = packed(b"small"), packed(os.urandom(PIECE_BYTES_MAX))
        store.put("t", [small])
        with pytest.raises(NoSpace, match="full"):
            store.put("t", [large])
        assert store.get("t", [small.id]) == (small,)
        with pytest.raises(NotFound):
            store.get("t", [large.id])


@pytest.mark.parametrize("address", ["ftp://host/path", "s4://bucket"])
def test_an_unknown_address_is_refused(address: str) -> None:
    with pytest.raises(OperatorError, match="expected a folder, or s3://"):
        open_blobs(address)


def test_a_job_and_its_retry_keep_what_was_uploaded_for_it(store: BlobStore) -> None:
    tree, other = packed(b"tree"), packed(b"other")
    assert store.claim_upload("t", bytes(16), 20_000, [tree.id]) == (0,)
    store.claim_upload("t", b"1" * 16, 20_000, [other.id])
    store.put("t", [tree, other])
    store.hand_over("t", bytes(16), "job")
    store.forget_uploads("t", 20_000)
    assert store.sweep("t") == 0, "they are of this day"
    store.forget_uploads("t", 20_001)
    assert store.sweep("t") == 1
    store.inherit("t", "job", "retry")
    store.forget("t", "job")
    assert store.sweep("t") == 0
    assert store.get("t", [tree.id]) == (tree,)
    store.forget("t", "retry")
    assert store.sweep("t") == 1


def test_an_upload_that_is_repeated_adds_no_claims(tmp_path: Path) -> None:
    store = open_blobs(str(tmp_path))
    tree = packed(b"tree")
    store.put("t", [tree])
    for number in range(4):
        assert store.claim_upload("t", bytes(16), 20_000 + number // 2, [tree.id]) == ()
        store.hand_over("t", bytes(16), f"job{number}")
    assert len(list((tmp_path / "t/uploads").glob("*/*/*"))) == 2, "one of each day"
    assert [len(list((tmp_path / "t/claims" / f"job{number}").iterdir())) for number in range(4)] == [1] * 4


def test_a_job_that_continues_another_gets_all_of_its_claims(store: BlobStore) -> None:
    tree, kept, other = packed(b"tree"), packed(b"kept"), packed(b"other")
    store.claim_upload("t", bytes(16), 20_000, [tree.id])
    store.hand_over("t", bytes(16), "job")
    store.forget_uploads("t", 20_001)
    store.claim("t", "job", SECOND, [kept.id])
    store.put("t", [tree, kept, other])
    store.inherit_all("t", "job", "next")
    store.inherit("t", "next", "retry")
    for claimant in ("job", "next"):
        store.forget("t", claimant)
        assert store.sweep("t") == (claimant == "job"), "of these three only what no job claims"
    assert store.get("t", [tree.id, kept.id]) == (tree, kept)
    store.forget("t", "retry")
    assert store.sweep("t") == 2
