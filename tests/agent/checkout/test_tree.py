"""Checkout of a tree: a commit that a bundle brings, on top of what the remote has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from airunner.agent.checkout.git import CheckoutFailed
from airunner.agent.checkout.treebundle import fetch_tree
from airunner.agent.workspace.workspace import make_workspace
from airunner.protocol.blobs import TREE_REF, Blob, Slice, TreeBundle, packed, unpacked
from airunner.protocol.errors import NotFound
from airunner.protocol.replies import BlobsGot
from airunner.protocol.requests import GetBlob
from airunner.protocol.requestsize import RequestSize
from tests.agent.checkout.conftest import Checkout
from tests.agent.checkout.repositories import commit, git


class Broker:
    """A broker that has some blobs."""

    request_size = RequestSize()

    def __init__(self, blobs: Sequence[Blob]) -> None:
        self._blobs = {blob.id: blob for blob in blobs}

    async def ask(self, request: GetBlob, *, smaller: object = None) -> BlobsGot:
        assert smaller is not None
        if request.ids[0] not in self._blobs:
            raise NotFound
        return BlobsGot(blobs=tuple(self._blobs[each] for each in request.ids if each in self._blobs))


CONTENT = [packed(piece) for piece in (b"# v2 git", b" bundle\n")]
INDEX = packed(msgspec.msgpack.encode([Slice(CONTENT[0].id, 0, 8), Slice(CONTENT[1].id, 0, 8)]))
TORN = packed(b"\x92\x93")


@pytest.mark.parametrize(
    ("index", "blobs", "words"),
    [
        (INDEX, [INDEX, CONTENT[0]], "the broker does not give the job's tree: a piece of it is not in the broker's"),
        (INDEX, CONTENT, "a piece of it is not in the broker's blob store"),
        (TORN, [TORN], "its list of pieces is broken"),
    ],
)
async def test_a_tree_of_which_something_is_missing_fails_in_words(
    tmp_path: Path, index: Blob, blobs: list[Blob], words: str
) -> None:
    tree = TreeBundle(upload=bytes(16), size_bytes=16, index=(Slice(index.id, 0, len(unpacked(index))),))
    workspace = make_workspace(tmp_path, None, ())
    with pytest.raises(CheckoutFailed, match=words):
        await fetch_tree(tree, workspace, Broker(blobs))


async def test_a_tree_is_what_its_pieces_are(tmp_path: Path) -> None:
    tree = TreeBundle(upload=bytes(16), size_bytes=16, index=(Slice(INDEX.id, 0, len(unpacked(INDEX))),))
    bundle = await fetch_tree(tree, make_workspace(tmp_path, None, ()), Broker([INDEX, *CONTENT]))
    assert bundle.read_bytes() == b"# v2 git bundle\n"


async def test_a_tree_on_a_commit_that_the_remote_has_no_more_is_refused_with_what_to_do(
    checkout: Checkout, repository: Path, tmp_path: Path
) -> None:
    base = commit(repository, "base")
    git(tmp_path, "clone", "--quiet", str(repository), "work")
    tree = commit(tmp_path / "work", "tree")
    git(tmp_path / "work", "branch", TREE_REF.removeprefix("refs/heads/"))
    bundle = tmp_path / "tree.bundle"
    git(tmp_path / "work", "bundle", "create", "--quiet", str(bundle), TREE_REF, f"^{base}")
    git(repository, "reset", "--quiet", "--hard", "HEAD~1")
    git(repository, "-c", "gc.reflogExpire=now", "-c", "gc.reflogExpireUnreachable=now", "gc", "--quiet", "--prune=now")
    words = f"has no commit {base} any more, on which the tree is built: run `git fetch --prune` where"
    with pytest.raises(CheckoutFailed, match=words):
        await checkout(repository, commit=tree, bundle=bundle)
