"""Restorer: files of a job are written below a folder, and nowhere else, whatever their paths and links say."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.client.artifactfiles import ArtifactFile
from airunner.protocol.errors import OperatorError
from airunner.transport.files.restoring import Part, Restorer

CONTENT = b"content"


def file(path: str, mode: int = 0o644) -> ArtifactFile:
    return ArtifactFile(path=path, size_bytes=0 if path.endswith("/") else len(CONTENT), mode=mode)


def link(path: str, target: str) -> ArtifactFile:
    return ArtifactFile(path=path, target=target)


def restore(folder: Path, *files: ArtifactFile) -> None:
    restorer = Restorer(folder)
    restorer.check(files)
    try:
        for each in files:
            content = CONTENT if each.kind == "file" else b""
            restorer.write([Part(each, content[:3], ended=False)] if content else [])
            restorer.write([Part(each, content[3:], ended=True)])
        restorer.finish()
    finally:
        restorer.close()


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder to restore to, beside which nothing changes."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "kept").write_text("as it was")
    (tmp_path / "place").mkdir()
    yield tmp_path / "place"
    assert everything(tmp_path / "beside") == {"kept"}
    assert (tmp_path / "beside" / "kept").read_text() == "as it was"
    assert {path.name for path in tmp_path.iterdir()} == {"beside", "place"}


@pytest.mark.parametrize(
    "files",
    [
        [file("../beside/kept")],
        [file("a/../../beside/kept")],
        [file("/tmp/x")],
        [file("..")],
        [file("../")],
        [file(".")],
        [file("/")],
        [file("a//b")],
        [file("./a")],
        [file("a\0b")],
        [link("a", "../beside")],
        [link("a/b", "../../beside")],
        [link("a", "/etc")],
        [link("a", "..")],
        [file("a/z"), link("x/y/b", "../../a"), link("x/y/l", "b/../..")],
        [link("a", "b"), file("a/kept")],
        [file("a/kept"), link("a", "b")],
        [file("a"), file("a/b")],
        [file("a"), file("a/")],
        [link("a", "b"), file("a/")],
    ],
)
def test_a_path_that_leads_out_of_the_folder_is_refused_before_anything_is_written(
    place: Path, files: list[ArtifactFile]
) -> None:
    with pytest.raises(OperatorError) as raised:
        restore(place, file("first"), *files)
    assert raised.value.exit_code == 65
    assert "\n" not in raised.value.message
    assert everything(place) == set()


def test_what_stands_in_the_way_is_named_before_anything_is_written(place: Path) -> None:
    (place / "out").symlink_to("../beside")
    (place / "folder").mkdir()
    (place / "plain").write_text("")
    for path, message in (
        ("out/kept", "out is a link, which is never followed: remove it first"),
        ("out/new/x", "out is a link, which is never followed: remove it first"),
        ("out/", "out is a link, which is never followed: remove it first"),
        ("plain/x", "plain is no folder: remove it first"),
        ("plain/", "plain is no folder: remove it first"),
        ("folder", "folder is a folder: remove it first"),
    ):
        with pytest.raises(OperatorError, match=message) as raised:
            restore(place, file("first"), file(path))
        assert raised.value.exit_code == 74
    assert everything(place) == {"out", "folder", "plain"}
    with pytest.raises(OperatorError, match="plain is no folder"):
        restore(place / "plain", file("first"))


def test_a_link_that_appears_after_the_check_is_not_followed(place: Path) -> None:
    restorer = Restorer(place)
    files = [file("a/kept"), file("a/b/c")]
    restorer.check(files)
    (place / "a").symlink_to("../beside")
    with pytest.raises(OperatorError, match=r"cannot write .*/a/kept: "):
        restorer.write([Part(files[0], CONTENT, ended=True)])
    restorer.close()


def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(place: Path) -> None:
    (place / "a").symlink_to("../beside/kept")
    (place / "b").symlink_to("../beside/kept")
    restore(place, file("a"), link("b", "a"))
    assert (place / "a").read_bytes() == CONTENT
    assert not (place / "a").is_symlink()
    assert (place / "b").readlink() == Path("a")


def test_modes_are_restored_also_of_folders_that_cannot_be_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [file("a/", 0o555), file("a/b/", 0o500), file("a/b/c", 0o400), file("d", 0o777)]
    set_modes: list[int] = []
    fchmod = os.fchmod

    def noted(descriptor: int, mode: int) -> None:
        set_modes.append(mode)
        fchmod(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", noted)
    previous = os.umask(0o077)
    try:
        restore(place, *files)
    finally:
        os.umask(previous)
    assert [stat.S_IMODE((place / each.path).stat().st_mode) for each in files] == [0o555, 0o500, 0o400, 0o777]
    assert set_modes == [0o400, 0o777, 0o500, 0o555], "of what is in a folder first: it may then be closed to its owner"
    (place / "a").chmod(0o755)
    (place / "a" / "b").chmod(0o755)


def test_a_file_that_is_not_whole_is_removed(place: Path) -> None:
    (place / "a").write_text("earlier")
    restorer = Restorer(place)
    restorer.check([file("a")])
    restorer.write([Part(file("a"), CONTENT, ended=False)])
    assert len(everything(place)) == 2
    restorer.close()
    assert everything(place) == {"a"}
    assert (place / "a").read_text() == "earlier"


def test_a_folder_that_cannot_be_written_is_one_line(place: Path) -> None:
    long = "x" * 300
    with pytest.raises(OperatorError, match=rf"cannot write .*/{long}: File name too long"):
        restore(place, file(long))
    assert everything(place) == set()


NAMES = st.sampled_from(["a", "b", "..", ".", "", "kept", "beside", "place", "/", "..//", "a\n"])
PATHS = st.builds("/".join, st.lists(NAMES, min_size=1, max_size=4))
FILES = st.one_of(
    st.builds(file, PATHS), st.builds(link, PATHS, PATHS), st.builds(lambda path: file(f"{path}/"), PATHS)
)


@given(st.lists(FILES, max_size=5), st.lists(FILES, max_size=5))
def test_nothing_outside_of_the_folder_ever_changes(first: list[ArtifactFile], second: list[ArtifactFile]) -> None:
    with TemporaryDirectory() as name:
        root = Path(name)
        (root / "beside").mkdir()
        (root / "beside" / "kept").write_text("as it was")
        (root / "place").mkdir()
        for files in (first, second):  # the second meets what the first has left
            before = everything(root / "place")
            restorer = Restorer(root / "place")
            try:
                restorer.check(files)
            except OperatorError:
                assert everything(root / "place") == before
                continue
            with suppress(OperatorError):
                restore(root / "place", *files)
        assert {path.name for path in root.iterdir()} == {"beside", "place"}
        assert (root / "beside" / "kept").read_text() == "as it was"
        assert everything(root / "beside") == {"kept"}
        for path in (root / "place").rglob("*"):
            with suppress(RuntimeError, OSError):  # a link to itself
                assert path.resolve().is_relative_to((root / "place").resolve())


PLAIN = st.lists(st.sampled_from(["a", "b", "c d", "é", ".x"]), min_size=1, max_size=4).map("/".join)


@given(st.lists(PLAIN, max_size=8, unique=True))
def test_plain_paths_without_a_conflict_are_all_written(paths: list[str]) -> None:
    files = [file(path) for path in paths if not any(other.startswith(f"{path}/") for other in paths)]
    with TemporaryDirectory() as name:
        restore(Path(name) / "new" / "folder", *files)
        for each in files:
            assert (Path(name) / "new" / "folder" / each.path).read_bytes() == CONTENT


class Timed(NamedTuple):
    """A file of a workspace, whose time is known."""

    path: str
    kind: str = "file"
    mode: int = 0o640
    target: str = ""
    mtime_ns: int | None = 1_234_567_890_123_456_789


def test_a_workspace_gets_its_times_its_owner_and_links_that_lead_anywhere_and_are_not_followed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []
    monkeypatch.setattr(os, "fchown", lambda _, *owner: given.append(owner))
    monkeypatch.setattr(os, "chown", lambda _, *owner, **how: given.append((*owner, how["follow_symlinks"])))
    restorer = Restorer(place, (5, 6), free_links=True)
    files = [Timed("a/", "folder", 0o750), Timed("a/b"), Timed("a/l", "link", target="/etc/passwd")]
    restorer.check(files)
    restorer.write([Part(each, CONTENT if each.kind == "file" else b"", ended=True) for each in files])
    restorer.finish()
    restorer.close()
    assert given == [(5, 6), (5, 6), (5, 6, False)]
    assert (place / "a/l").readlink() == Path("/etc/passwd")
    for path in ("a", "a/b", "a/l"):
        assert (place / path).lstat().st_mtime_ns == Timed("").mtime_ns
    with pytest.raises(OperatorError, match="a/l is a file or a link"):
        restorer.check([files[2], Timed("a/l/x")])
