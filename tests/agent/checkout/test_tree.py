"""Checkout of a tree: a commit that a bundle brings, on top of what the remote has."""

from __future__ import annotations

from pathlib import Path

import pytest

from airunner.agent.checkout.git import CheckoutFailed
from airunner.protocol.blobs import TREE_REF
from tests.agent.checkout.conftest import Checkout
from tests.agent.checkout.repositories import commit, git


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
