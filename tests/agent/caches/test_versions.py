"""Versions of caches: what is saved is what is restored, only what is new is sent, and no manifest leads elsewhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from airunner.agent.caches.fetching import fetch, manifest_of
from airunner.agent.caches.manifest import SMALL_MAX, Entry, Manifest, decoded, encoded
from airunner.agent.caches.scanning import Folders, scan
from airunner.agent.caches.writing import Writer, copy
from airunner.certs.secretfile import make_folder
from airunner.protocol.blobs import PIECE_BYTES_MAX, BlobId
from airunner.protocol.errors import Forged
from tests.agent.caches.broking import Broker, looks
from tests.agent.playing import inline

PATHS = ("~/.cache/one", "two")
SMALL = 300  # files of 6,000 bytes: of the last piece more than half is in use
PIECE = PIECE_BYTES_MAX


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folders of a cache, with what caches may have."""
    folder = tmp_path / "version"
    one, two = folder / "0", folder / "1"
    one.mkdir(parents=True)
    (two / "inner/empty").mkdir(parents=True)
    for number in range(SMALL):
        (one / f"{number}").write_bytes(Random(number).randbytes(6_000))
    (one / "large").write_bytes(Random(1).randbytes(3 * PIECE + 5))
    (one / "piece").write_bytes(Random(2).randbytes(PIECE))
    (one / "none").touch()
    (two / "run").write_bytes(b"#!/bin/sh\n")
    (two / "run").chmod(0o751)
    (two / os.fsdecode(b"not \xff UTF-8")).write_bytes(b"x")
    (two / "link").symlink_to("/usr/bin/python3")
    (two / "inner/read-only").write_bytes(b"x")
    (two / "inner/read-only").chmod(0o444)
    for number, place in enumerate([*folder.rglob("*"), one, two]):
        os.utime(place, ns=(5, 1_700_000_000_123_456_789 + number), follow_symlinks=False)
    (two / "inner").chmod(0o555)
    yield folder
    (two / "inner").chmod(0o755)


async def restored(broker: Broker, to: Path) -> Manifest:
    """Write the last version that was put."""
    make_folder(to)
    manifest = await manifest_of(broker.put[-1][0], broker.get, inline)
    await fetch(manifest, to, None, broker.get, inline)
    return manifest


async def test_what_is_restored_is_what_was_saved(folder: Path, tmp_path: Path) -> None:
    broker = Broker()
    os.mkfifo(folder / "0/pipe")
    manifest, sent = await broker.save(folder, PATHS)
    (folder / "0/pipe").unlink()
    os.utime(folder / "0", ns=(5, (tmp_path / "version/0/large").stat().st_mtime_ns))
    assert await restored(broker, tmp_path / "to") == manifest
    left, right = looks(folder), looks(tmp_path / "to")
    assert left.keys() == right.keys()
    assert [path for path in left if path not in (".", "0") and left[path] != right[path]] == []
    assert sent == broker.put[0][2] + len(encoded(manifest)) if manifest else False
    assert len(broker.blobs) < 12, "small files share pieces"
    (tmp_path / "to/1/inner").chmod(0o755)


def test_a_copy_is_what_it_was_made_of(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    copy(scan(folder, 2).entries, folder, Writer(tmp_path / "to", None))
    left, right = looks(folder), looks(tmp_path / "to")
    assert {path for path in left.keys() | right.keys() if left.get(path) != right.get(path)} <= {"."}
    assert (folder / "0/1").stat().st_nlink == 1
    (tmp_path / "to/1/inner").chmod(0o755)


def test_a_link_that_takes_the_place_of_a_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    entries = scan(folder, 2).entries
    private = tmp_path / "private"
    (folder / "1/inner").chmod(0o755)
    (folder / "1/inner").rename(private)
    (private / "read-only").chmod(0o600)
    (private / "read-only").write_bytes(b"secret")
    (folder / "1/inner").symlink_to(private)  # as a job may that has kept a descriptor of the folder
    (tmp_path / "to").mkdir()
    with pytest.raises(NotADirectoryError):
        copy(entries, folder, Writer(tmp_path / "to", None))
    one = next(entry for entry in entries if entry.path == b"inner/read-only")
    with Folders(folder) as folders, pytest.raises(NotADirectoryError):
        folders.chunks(one)
    (folder / "1/inner").unlink()
    private.rename(folder / "1/inner")


def test_a_link_that_takes_the_place_of_a_folder_during_the_scan_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0/a/first").mkdir(parents=True)
    (tmp_path / "0/b").mkdir()
    listed = os.listdir

    def swapped(place: int) -> list[str]:
        names = listed(place)
        if "first" in names:
            (tmp_path / "0/b").rmdir()
            (tmp_path / "0/b").symlink_to("/usr")
        return names

    monkeypatch.setattr(os, "listdir", swapped)
    with pytest.raises(NotADirectoryError):
        scan(tmp_path, 1)


def test_a_hard_link_to_a_file_of_another_user_is_not_cached(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0/own").touch()
    (tmp_path / "0/linked").hardlink_to(tmp_path / "0/own")
    (tmp_path / "0/single").touch()
    assert len(scan(tmp_path, 1, os.getuid()).entries) == 4
    assert [entry.path for entry in scan(tmp_path, 1, os.getuid() + 1).entries] == [b"", b"single"]


def test_a_path_that_could_not_be_restored_is_not_cached(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    with chdir(tmp_path / "0"):
        for _ in range(31):
            os.mkdir("d" * 100)  # noqa: PTH102 - a path of pathlib's would be too long
            os.chdir("d" * 100)
    with pytest.raises(OSError, match="File name too long"):
        scan(tmp_path, 1)


async def test_only_what_is_new_is_sent(folder: Path, tmp_path: Path) -> None:
    broker = Broker()
    first, _ = await broker.save(folder, PATHS)
    assert await broker.save(folder, PATHS, first) == (None, 0)
    again, sent = await broker.save(folder, PATHS, first, key="b")
    assert (again is None, sent < 100_000, len(broker.put)) == (False, True, 2), "only the manifest, for another key"
    (folder / "0/new").write_bytes(b"new")
    (folder / "0/7").unlink()
    os.utime(folder / "0/8")
    os.utime(folder / "0/large")
    second, sent = await broker.save(folder, PATHS, first)
    assert second is not None
    assert sent - len(encoded(second)) == 3 + 5, "of files whose time alone has changed, only a large one's end"
    await restored(broker, tmp_path / "to")
    assert (tmp_path / "to/0/new").read_bytes() == b"new"
    assert not (tmp_path / "to/0/7").exists()
    (tmp_path / "to/1/inner").chmod(0o755)


async def test_a_file_that_was_touched_since_the_job_began_is_read_again(folder: Path, tmp_path: Path) -> None:
    broker = Broker()
    first, _ = await broker.save(folder, PATHS)
    file = folder / "0/8"
    status = file.stat()
    file.write_bytes(bytes(6_000))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    second, _ = await broker.save(folder, PATHS, first, began_ns=file.stat().st_ctime_ns)
    assert second is not None
    await restored(broker, tmp_path / "to")
    assert (tmp_path / "to/0/8").read_bytes() == bytes(6_000)
    (tmp_path / "to/1/inner").chmod(0o755)


async def test_a_small_cache_of_which_a_job_touches_all_is_not_sent_again(tmp_path: Path) -> None:
    """As ccache sets the times of what it uses, and notes how often in a file."""
    broker, folder = Broker(), tmp_path / "version"
    (folder / "0").mkdir(parents=True)
    for number in range(10):
        (folder / f"0/{number}").write_bytes(Random(number).randbytes(6_000))
    last, _ = await broker.save(folder, PATHS[:1])
    for run in range(SMALL_MAX // 2):
        for file in (folder / "0").iterdir():
            os.utime(file, ns=(run, run))
        (folder / "0/0").chmod(0o640 + run % 2)
        (folder / "0/counts").write_bytes(b"%d" % run)
        broker.asked.clear()
        last, sent = await broker.save(folder, PATHS[:1], last, began_ns=0)
        assert last is not None
        assert sent - len(encoded(last)) == 1
        assert broker.asked == ["HaveBlobs", "PutBlob"], "what is little travels together, and then the version is put"
    await restored(broker, tmp_path / "to")
    assert looks(tmp_path / "to/0") == looks(folder / "0")


async def test_pieces_of_which_little_is_in_use_are_packed_again(tmp_path: Path) -> None:
    broker, folder = Broker(), tmp_path / "version"
    (folder / "0").mkdir(parents=True)
    last: Manifest | None = None
    for number in range(60):
        (folder / f"0/{number}").write_bytes(Random(number).randbytes(60_000))
        if number >= 15:
            (folder / f"0/{number - 15}").unlink()
        last, _ = await broker.save(folder, PATHS[:1], last)
        assert last is not None
        assert len(last.blobs) <= SMALL_MAX + 2
    await restored(broker, tmp_path / "to")
    assert looks(tmp_path / "to/0").keys() == {".", *(str(number) for number in range(45, 60))}


async def test_what_the_broker_has_lost_is_sent_again(folder: Path, tmp_path: Path) -> None:
    broker = Broker()
    first, _ = await broker.save(folder, PATHS)
    assert first is not None
    for blob in first.blobs[::2]:
        del broker.blobs[BlobId(blob)]
    (folder / "0/new").write_bytes(b"new")
    await broker.save(folder, PATHS, first)
    await restored(broker, tmp_path / "to")
    assert (tmp_path / "to/0/large").read_bytes() == (folder / "0/large").read_bytes()
    (tmp_path / "to/1/inner").chmod(0o755)


def file(path: bytes, place: int = 0, parts: tuple[int, ...] = (0, 0, 1), mode: int = stat.S_IFREG | 0o644) -> Entry:
    return Entry(place, path, mode, 0, sum(parts[2::3]), parts)


TOP = Entry(0, b"", stat.S_IFDIR | 0o755, 0)
UNSOUND = {
    "out of the folder": [TOP, file(b"../x")],
    "absolute": [TOP, file(b"/x")],
    "a dot": [TOP, file(b"./x")],
    "NUL": [TOP, file(b"x\0")],
    "no name": [file(b"")],
    "another place": [TOP, file(b"x", 1)],
    "a place before": [TOP, file(b"x", -1)],
    "no such blob": [TOP, file(b"x", parts=(1, 0, 1))],
    "a blob before": [TOP, file(b"x", parts=(-1, 0, 1))],
    "out of the piece": [TOP, file(b"x", parts=(0, PIECE, 1))],
    "before the piece": [TOP, file(b"x", parts=(0, -1, 1))],
    "half a part": [TOP, file(b"x", parts=(0, 0, 1, 0))],
    "another size": [TOP, replace(file(b"x"), size_bytes=2)],
    "a device": [TOP, file(b"x", mode=stat.S_IFCHR | 0o644)],
    "a link with content": [TOP, replace(file(b"x", mode=stat.S_IFLNK | 0o777), target=b"y")],
    "a link to nothing": [TOP, Entry(0, b"x", stat.S_IFLNK | 0o777, 0)],
}
LINK = Entry(0, b"x", stat.S_IFLNK | 0o777, 0, target=b"/tmp")
TANGLED = {
    "twice": [TOP, file(b"x"), file(b"x")],
    "below a file": [TOP, file(b"x"), file(b"x/y")],
    "below a link": [TOP, LINK, file(b"x/y")],
    "a link in place of a folder": [TOP, replace(TOP, path=b"x"), LINK],
    "without a folder": [TOP, file(b"x/y")],
    "longer than its piece": [TOP, file(b"x", parts=(0, 0, PIECE))],
}


@pytest.mark.parametrize("entries", UNSOUND.values(), ids=UNSOUND)
def test_an_unsound_manifest_is_refused(entries: list[Entry]) -> None:
    with pytest.raises(Forged):
        decoded(encoded(Manifest("a", "Linux", PATHS[:1], (b"x" * 32,), tuple(entries))))


@pytest.mark.parametrize("entries", TANGLED.values(), ids=TANGLED)
async def test_a_tangled_manifest_writes_nothing_elsewhere(entries: list[Entry], tmp_path: Path) -> None:
    broker, source = Broker(), tmp_path / "version/0"
    source.mkdir(parents=True)
    (source / "file").write_bytes(b"content")
    manifest, _ = await broker.save(source.parent, PATHS[:1])
    assert manifest is not None
    bad = decoded(encoded(replace(manifest, entries=tuple(entries))))
    (tmp_path / "to").mkdir()
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - see below
        await fetch(bad, tmp_path / "to", None, broker.get, inline)
    error = caught.value.exceptions[0] if isinstance(caught.value, BaseExceptionGroup) else caught.value
    assert isinstance(error, (OSError, Forged))


@pytest.mark.parametrize("spoil", [lambda content: content[:-1], lambda content: b"\xc1" + content, lambda _: b""])
def test_a_broken_manifest_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Forged):
        decoded(spoil(encoded(Manifest("a", "Linux", PATHS[:1], (), (TOP,)))))
