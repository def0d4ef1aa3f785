"""Objects in a folder: they are read as they were written, and have their names only once they are on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from obstore.store import LocalStore, MemoryStore

from airunner.broker.blobs.folderobjects import FolderObjects
from airunner.broker.blobs.objects import Objects, StoredObjects
from airunner.protocol.errors import BadRequest, Busy, NoSpace


@pytest.fixture(params=["folder", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    return FolderObjects(tmp_path) if request.param == "folder" else StoredObjects(MemoryStore())


def test_objects_are_read_as_they_were_last_written(objects: Objects) -> None:
    objects.put({"t/blobs/ab/one": b"1", "t/claims/job/two": b"", "other/three": b"3"})
    objects.put({"t/blobs/ab/one": b"new"})
    assert [objects.get(key) for key in ("t/blobs/ab/one", "t/claims/job/two", "t/blobs/ab/no", "no/one")] == [
        *(b"new", b""),
        *(None, None),
    ]
    assert objects.missing(["other/three", "other/four", "t/blobs/ab/one", "four", "four"]) == (1, 3, 4)


def test_objects_are_listed_by_folders_and_deleted(objects: Objects) -> None:
    keys = ["t/blobs/ab/one", "t/blobs/cd/two", "t/blobs-of/three", "u/four"]
    objects.put(dict.fromkeys(keys, b"."))
    assert sorted(objects.folders()) == ["t", "u"]
    assert sorted(objects.keys("t/blobs")) == keys[:2]
    assert list(objects.keys("t/none")) == []
    objects.delete(["t/blobs/ab/one", "t/blobs/ab/missing", "none/missing", "u/four"])
    assert list(objects.keys("t/blobs")) == keys[1:2]


def test_a_folder_that_an_earlier_version_has_filled_is_read(tmp_path: Path) -> None:
    earlier, now = StoredObjects(LocalStore(tmp_path)), FolderObjects(tmp_path)
    name = "a.b@c:d+e-f=g_h"
    earlier.put({f"{name}/blobs/ab/{name}": b"1"})
    now.put({f"{name}/blobs/cd/{name}": b"2"})
    for objects in (earlier, now):
        keys = sorted(objects.keys(f"{name}/blobs"))
        assert keys == [f"{name}/blobs/ab/{name}", f"{name}/blobs/cd/{name}"]
        assert [objects.get(key) for key in keys] == [b"1", b"2"]


def test_an_object_is_on_the_disk_before_it_has_its_name_and_its_name_before_put_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[Path, bool]] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), (tmp_path / "t/key").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    FolderObjects(tmp_path).put({"t/key": b"content"})
    (draft, named), *folders = synced
    assert draft.name.startswith("key#")
    assert not named
    assert sorted(folders) == [(tmp_path, True), (tmp_path / "t", True)], "also the folder that has the new one"


def test_what_a_broker_was_writing_when_it_died_is_no_object(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    objects.put({"t/key": b"content"})
    (tmp_path / "t/key#123").write_bytes(b"cont")
    assert list(objects.keys("t")) == ["t/key"]
    assert list(StoredObjects(LocalStore(tmp_path)).keys("t")) == ["t/key"], "nor to an earlier version"


def test_what_a_broker_has_left_goes_after_a_day(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    objects.put({"t/key": b"content"})
    old, young = tmp_path / "t/key#1", tmp_path / "t/key#2"
    for draft in (old, young):
        draft.write_bytes(b"cont")
    os.utime(old, (0, 0))
    assert list(objects.keys("t")) == ["t/key"]
    assert (old.exists(), young.exists()) == (False, True)


def test_a_failed_write_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    objects.put({"t/folder/inner": b"1"})
    with pytest.raises(NoSpace, match="cannot be written: Is a directory"):
        objects.put({"t/other": b"2", "t/folder": b"3"})
    assert sorted(each.name for each in (tmp_path / "t").iterdir()) == ["folder", "other"]
    with pytest.raises(Busy, match="Not a directory"):
        objects.get("t/other/inner")


@pytest.mark.parametrize("key", ["../out", "t/../../out", "t//key", "", "/etc/out", "t/.", "t/key#1", "t/\0"])
def test_a_key_that_is_no_path_below_the_folder_is_refused(tmp_path: Path, key: str) -> None:
    folder = tmp_path / "blobs"
    folder.mkdir()
    objects = FolderObjects(folder)
    for use in (
        objects.get,
        lambda key: objects.missing([key]),
        lambda key: objects.put({key: b"."}),
        lambda key: objects.delete([key]),
    ):
        with pytest.raises(BadRequest):
            use(key)
    with pytest.raises(BadRequest):
        list(objects.keys(key))
    assert [*tmp_path.rglob("*")] == [folder]
