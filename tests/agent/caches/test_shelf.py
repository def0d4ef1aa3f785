"""Shelf of caches: which versions it has, in which order they go, and that a killed agent leaves only whole ones."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from airunner.agent.caches.shelf import FACTS, Shelf, facts_of, place_of, remove_unused
from tests.agent.playing import inline

UID = os.geteuid()
PLENTY = 1 << 30
GO, NPM, PIP = (place_of("default", "queue", "default", name, "~/.cache") for name in ("go", "npm", "pip"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def keep(shelf: Shelf, place: str, content: str, size_bytes: int = 1) -> None:
    """A job saves a cache."""
    folder = shelf.begin()
    (folder / "0").mkdir()
    (folder / "0/file").write_text(content)
    async with shelf.kept(place, folder, facts_of(("go",), "key", size_bytes, 0, UID)):
        pass


def contents(shelf: Shelf, places: Iterable[str] = (GO, NPM, PIP)) -> list[str]:
    versions = [version for place in places if (version := shelf.version(place)) is not None]
    return [(version.folder / "0/file").read_text() for version in versions]


def folders(home: Path) -> list[str]:
    return sorted(folder.name for folder in (home / "caches").iterdir())


async def test_a_version_is_taken_by_one_job_alone_and_is_back_when_it_is_kept(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, inline, PLENTY)
    assert shelf.version(GO) is None
    await keep(shelf, GO, "one")
    assert contents(shelf) == ["one"]
    folder = shelf.taken(GO, UID)
    assert folder is not None
    assert (shelf.taken(GO, UID), shelf.version(GO)) == (None, None)
    (folder / "0/file").write_text("two")
    async with shelf.kept(GO, folder, facts_of(("go",), "key", 1, 0, UID)):
        assert shelf.taken(GO, UID) is None, "it is read"
    assert contents(shelf) == contents(Shelf(tmp_path, inline, PLENTY)) == ["two"]
    assert shelf.taken(GO, UID + 1) is None, "its files are another user's"


async def test_a_version_that_is_replaced_or_dropped_stays_while_it_is_read(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, inline, PLENTY)
    await keep(shelf, GO, "one")
    version = shelf.version(GO)
    assert version is not None
    async with shelf.reading(version):
        assert shelf.taken(GO, UID) is None
        await keep(shelf, GO, "two")
        await shelf.drop(GO)
        assert (version.folder / "0/file").read_text() == "one"
    assert (contents(shelf), folders(tmp_path)) == ([], [])


async def test_the_least_recently_used_versions_go_when_there_is_no_room(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, inline, 20)
    await keep(shelf, GO, "go", 10)
    await keep(shelf, NPM, "npm", 10)
    if (folder := shelf.taken(GO, UID)) is not None:
        async with shelf.kept(GO, folder, facts_of(("go",), "key", 10, 0, UID)):
            pass
    await keep(shelf, PIP, "pip", 10)
    assert contents(shelf) == ["go", "pip"]
    await keep(shelf, PIP, "large", 21)
    assert contents(shelf) == ["go"], "one that is too large is not kept, and no other goes for it"


async def test_versions_leave_a_part_of_the_disk_free(tmp_path: Path) -> None:
    await keep(Shelf(tmp_path, inline, PLENTY), GO, "go")
    full = Shelf(tmp_path, inline, PLENTY, spare_bytes=1 << 62)
    assert contents(full) == ["go"]
    await keep(full, NPM, "npm")
    assert (contents(full), folders(tmp_path)) == ([], [])


async def test_an_agent_that_is_killed_leaves_the_versions_that_are_whole(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, inline, PLENTY)
    for place in (GO, NPM, PIP):
        await keep(shelf, place, place)
    assert shelf.taken(GO, UID) is not None, "a job changes it"
    left = shelf.version(PIP)
    assert left is not None
    (left.folder / FACTS).write_text("{")
    shelf.begin()
    assert remove_unused(tmp_path) == []
    assert contents(Shelf(tmp_path, inline, PLENTY)) == [NPM]
    assert len(folders(tmp_path)) == 1


async def test_what_another_boot_has_written_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await keep(Shelf(tmp_path, inline, PLENTY), GO, "one")
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr("airunner.agent.caches.shelf._BOOT", boot)
    remove_unused(tmp_path)
    assert folders(tmp_path) == []


async def test_jobs_with_the_same_cache_have_one_name_of_their_workspaces(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, inline, PLENTY)
    seat = shelf.seat(GO)
    assert shelf.seat(GO) == Shelf(tmp_path, inline, PLENTY).seat(GO) == seat
    assert shelf.seat(NPM) != seat
    other = Shelf(tmp_path / "other", inline, PLENTY)
    assert other.seat(GO) != seat
    assert other.seat(GO, b"key") == shelf.seat(GO, b"key") != seat, "the broker's key makes it one name on all agents"
    assert len({shelf.seat(GO, b"key"), shelf.seat(NPM, b"key"), shelf.seat(GO, b"another tenant's")}) == 3
    remove_unused(tmp_path)
    assert shelf.seat(GO) == seat
