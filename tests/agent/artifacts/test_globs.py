"""Globs of artifacts: which paths a pattern names, beside Python's own `glob`."""

from __future__ import annotations

from glob import glob
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airunner.agent.artifacts.globs import Globs

FILES = ("a.txt", "b.log", ".env", "dist/a.whl", "dist/.hidden", "dist/sub/b.whl", "dist/sub/deep/c.txt", ".git/config")
FOLDERS = {str(folder) for file in FILES for folder in Path(file).parents if str(folder) != "."}
NAMES = st.sampled_from(["*", "**", "?", "a*", "*.whl", "dist", "sub", "[ab]*", ".*", ".env", "deep", "*u*", "[!a]*"])


def named(globs: Globs, path: str, *, folder: bool) -> bool:
    """Whether a pattern names a path itself or a folder around it."""
    places = globs.top
    *outer, name = path.split("/")
    for inner in outer:
        places = globs.below(places, inner, folder=True)
    return bool(globs.matched(globs.below(places, name, folder=folder)))


def kept(*patterns: str) -> set[str]:
    globs = Globs(patterns)
    return {file for file in FILES if named(globs, file, folder=False)}


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("a.txt", {"a.txt"}),
        ("*", {"a.txt", "b.log", "dist/a.whl", "dist/sub/b.whl", "dist/sub/deep/c.txt"}),
        ("*.txt", {"a.txt"}),
        ("**/*.txt", {"a.txt", "dist/sub/deep/c.txt"}),
        ("dist", {"dist/a.whl", "dist/sub/b.whl", "dist/sub/deep/c.txt"}),
        ("./dist//", {"dist/a.whl", "dist/sub/b.whl", "dist/sub/deep/c.txt"}),
        ("dist/*.whl", {"dist/a.whl"}),
        ("dist/**/*.whl", {"dist/a.whl", "dist/sub/b.whl"}),
        ("dist/.*", {"dist/.hidden"}),
        ("**/.*", {".env", "dist/.hidden"}),
        (".git/**", {".git/config"}),
        (".", {"a.txt", "b.log", "dist/a.whl", "dist/sub/b.whl", "dist/sub/deep/c.txt"}),
        ("a.txt/", set()),
        ("[ab].*", {"a.txt", "b.log"}),
        ("A.TXT", set()),
        ("nothing", set()),
    ],
)
def test_a_pattern_names_files_and_all_that_is_in_folders_but_no_dot_files(pattern: str, files: set[str]) -> None:
    hidden = {".git/config"} if pattern == "**/.*" else set()
    assert kept(pattern) == files | hidden


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tree")
    for file in FILES:
        (top / file).parent.mkdir(parents=True, exist_ok=True)
        (top / file).touch()
    return top


@given(parts=st.lists(NAMES, min_size=1, max_size=4), slash=st.booleans())
def test_a_pattern_names_what_pythons_glob_finds(tree: Path, parts: list[str], slash: bool) -> None:  # noqa: FBT001 - hypothesis draws it
    assume(set(parts) != {"**"} or not slash)  # it names the checkout itself, and so all that is in it
    pattern = "/".join(parts) + "/" * slash
    globs = Globs([pattern])
    globbed = glob(pattern, root_dir=tree, recursive=True)  # noqa: PTH207 - the pattern is compared with this
    folders_or_bare = [path for path in globbed if not path.endswith("/") or (tree / path).is_dir()]  # not `file/`
    found = {path.rstrip("/") for path in folders_or_bare} - {""}
    around = {path for path in found if any(f"{folder}" in found for folder in map(str, Path(path).parents))}
    ours = {path for path in {*FILES, *FOLDERS} if named(globs, path, folder=path in FOLDERS)}
    below = {path for path in ours if any(str(folder) in found for folder in Path(path).parents)}
    assert around <= ours
    assert ours - below == found - below
