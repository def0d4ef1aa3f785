"""Collecting of artifacts: what is found of a real tree, and what is left out of it, with a word."""

from __future__ import annotations

import os
import socket
from contextlib import chdir
from pathlib import Path

import pytest

from airunner.agent.artifacts import collecting
from airunner.agent.artifacts.collecting import Collection, Found, TooManyArtifacts, collect, reading
from airunner.agent.artifacts.tree import Tree
from airunner.protocol.artifactpaths import link_problem
from airunner.protocol.blobs import PIECE_BYTES_MAX

BYTES_MAX = 1 << 30


def found_in(top: Path, *patterns: str, bytes_max: int = BYTES_MAX, owner: int | None = None) -> Collection:
    with Tree(top) as tree:
        return collect(tree, patterns, bytes_max, owner)


def paths(top: Path, *patterns: str) -> list[str]:
    return [found.path for found in found_in(top, *patterns).found]


def write(top: Path, path: str, content: bytes = b"x", mode: int = 0o644) -> Path:
    file = top / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(mode)
    return file


def test_files_are_found_with_their_modes_and_sizes_sorted_by_path(tmp_path: Path) -> None:
    write(tmp_path, "dist/run", b"#!/bin/sh\n", 0o4755)
    write(tmp_path, "a", b"12345", 0o600)
    write(tmp_path, "dist/new\nline")
    write(tmp_path, "source")
    collection = found_in(tmp_path, "dist", "a", "nothing", "also/nothing")
    assert collection.found == [
        Found("a", 0o600, 5),
        Found("dist/new\nline", 0o644, 1),
        Found("dist/run", 0o755, 10),
    ]
    assert (collection.left_out, collection.unmatched) == ([], ["nothing", "also/nothing"])


def test_of_folders_the_empty_ones_are_kept(tmp_path: Path) -> None:
    (tmp_path / "out/empty/inner").mkdir(parents=True)
    (tmp_path / "out/only-hidden").mkdir(mode=0o700)
    write(tmp_path, "out/only-hidden/.x")
    write(tmp_path, "out/full/file")
    (tmp_path / "elsewhere").mkdir()
    assert paths(tmp_path, "out") == ["out/empty/inner/", "out/full/file", "out/only-hidden/"]
    assert paths(tmp_path, "**/*.txt") == []


@pytest.mark.parametrize(
    ("path", "target", "kept"),
    [
        ("l", "a", True),
        ("l", "./a/b", True),
        ("l", ".", True),
        ("l", "..", False),
        ("l", "/etc/passwd", False),
        ("d/l", "../a", True),
        ("d/e/l", "../..", True),
        ("d/e/l", "../../..", False),
        ("d/e/l", "x/../../../../..", False),
        ("d/e/l", "up/..", False),  # `up` may be a link to the checkout, and this be the folder around it
        ("l", "missing", True),
        ("l", "\udcff", False),
    ],
)
def test_a_link_is_kept_as_a_link_if_it_stays_in_the_checkout_whatever_the_others_are(
    path: str, target: str, *, kept: bool
) -> None:
    assert (link_problem(path, target) is None) is kept


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside = write(tmp_path, "outside/secret", b"s").parent
    top = tmp_path / "checkout"
    write(top, "in/file")
    (top / "in/good").symlink_to("file")
    (top / "in/bad").symlink_to(outside / "secret")
    (top / "in/away").symlink_to(outside)
    (top / "way").symlink_to("in")
    collection = found_in(top, "in", "way", "way/file", "in/away/secret")
    assert collection.found == [
        Found("in/file", 0o644, 1),
        Found("in/good", 0o777, target="file"),
        Found("way", 0o777, target="in"),
    ]
    assert collection.unmatched == ["way/file", "in/away/secret"]
    assert collection.left_out == [
        "in/away: it is a link out of the checkout",
        "in/bad: it is a link out of the checkout",
    ]


def test_a_checkout_that_is_a_link_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "checkout").symlink_to("/etc")
    with pytest.raises(OSError, match="checkout"):
        Tree(tmp_path / "checkout")


def test_what_is_no_file_and_what_has_no_name_in_utf_8_is_left_out_with_a_word(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with chdir(tmp_path), socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        collection = found_in(tmp_path, "*")
    assert collection.left_out == ["pipe: it is a named pipe", "socket: it is a socket"]
    assert collection.unmatched == ["*"], "nothing of it is kept"
    write(tmp_path, os.fsdecode(b"caf\xe9"))
    write(tmp_path, os.fsdecode(b"folder-\xff/file"))
    write(tmp_path, "escape\x1b[2J")
    os.mkfifo(tmp_path / "\x1b]0;title")
    collection = found_in(tmp_path, "*")
    assert [found.path for found in collection.found] == ["escape\x1b[2J"]
    assert collection.left_out == [
        "\\x1b]0;title: it is a named pipe",
        "caf\ufffd: its name is not UTF-8",
        "folder-\ufffd: its name is not UTF-8",
        "pipe: it is a named pipe",
        "socket: it is a socket",
    ]


def test_a_device_is_left_out() -> None:
    assert found_in(Path("/dev"), "null").left_out == ["null: it is a device"]


def test_what_cannot_be_read_is_left_out_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "closed/file")
    write(tmp_path, "file")
    write(tmp_path, "gone")
    opened = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "closed":
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refusing)  # root may read everything
    with Tree(tmp_path) as tree:
        collection = collect(tree, ("**",), BYTES_MAX)
        (tmp_path / "gone").unlink()
        contents = {found.path: b"".join(chunks) for found, chunks in reading(tree, collection, BYTES_MAX)}
    assert contents == {"closed/": b"", "file": b"x"}
    assert collection.left_out == [
        "closed: it cannot be read: Permission denied",
        "gone: it cannot be read: No such file or directory",
    ]


def test_a_machine_that_can_open_no_more_files_leaves_nothing_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "file")
    with Tree(tmp_path) as tree:
        collection = collect(tree, ("**",), BYTES_MAX)

        def refusing(*_: object, **__: object) -> int:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "open", refusing)
        with pytest.raises(OSError, match="Too many open files"):
            list(reading(tree, collection, BYTES_MAX))


@pytest.mark.parametrize("size", [0, 5, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX])
def test_a_file_that_grows_when_it_is_read_is_cut_into_full_chunks(tmp_path: Path, size: int) -> None:
    file = write(tmp_path, "log", b"a" * size)
    with Tree(tmp_path) as tree:
        chunks = tree.chunks("log")
        with file.open("ab") as log:
            log.write(b"b" * PIECE_BYTES_MAX)
        read = list(chunks)
    assert b"".join(read) == file.read_bytes()
    assert all(len(chunk) == PIECE_BYTES_MAX for chunk in read[:-1])


def test_what_is_read_counts_and_not_what_the_file_was_before(tmp_path: Path) -> None:
    shrinks, grows = write(tmp_path, "shrinks", b"x" * 1_000), write(tmp_path, "grows", b"x")
    with Tree(tmp_path) as tree:
        collection = collect(tree, ("*",), 3_000)
        shrinks.write_bytes(b"y")
        grows.write_bytes(b"z" * 2_000)
        contents = {found.path: b"".join(chunks) for found, chunks in reading(tree, collection, 3_000)}
        assert contents == {"shrinks": b"y", "grows": b"z" * 2_000}
        grows.write_bytes(b"z" * 4_000)
        with pytest.raises(TooManyArtifacts, match="GiB"):
            [list(chunks) for _, chunks in reading(tree, collection, 3_000)]


def test_more_files_or_bytes_than_the_bounds_are_refused_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        write(tmp_path, str(number), b"x" * 1_000)
    assert len(paths(tmp_path, "*")) == 4
    with pytest.raises(TooManyArtifacts, match="GiB, which `airunner agent --artifact-gib` allows"):
        found_in(tmp_path, "*", bytes_max=3_999)
    monkeypatch.setattr(collecting, "FILES_MAX", 3)
    with pytest.raises(TooManyArtifacts, match="more than 3 files"):
        found_in(tmp_path, "*")


def test_a_hard_link_to_a_file_of_another_user_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "own")
    (tmp_path / "linked").hardlink_to(tmp_path / "own")
    write(tmp_path, "single")
    other = os.getuid() + 1
    assert len(found_in(tmp_path, "*", owner=os.getuid()).found) == 3
    collection = found_in(tmp_path, "*", owner=other)
    assert [found.path for found in collection.found] == ["single"], "as one that an operator's hook has left"
    assert collection.left_out == [f"{name}: it is a hard link to another user's file" for name in ("linked", "own")]


def test_a_tree_deeper_than_the_longest_path_takes_few_descriptors(tmp_path: Path) -> None:
    name = "d" * 100
    with chdir(tmp_path):
        for _ in range(60):
            os.mkdir(name)  # noqa: PTH102 - a path of pathlib's would be too long
            os.chdir(name)
        Path("file").write_bytes(b"deep")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - descriptors, no paths
    with Tree(tmp_path) as tree:
        collection = collect(tree, ("**",), BYTES_MAX)
        assert len(os.listdir("/proc/self/fd")) <= before + 2  # noqa: PTH208 - descriptors, no paths
        assert [len(found.path) for found in collection.found] == [40 * 101]
        assert collection.left_out == [f"{'/'.join([name] * 41)}: its path is too long"]
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - descriptors, no paths
