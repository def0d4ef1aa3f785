"""Caches of an attempt on a stage: which jobs get what, what is kept of which, and that no job fails for a cache."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from airunner.agent.output.spool import SPOOL_FOLDER
from airunner.broker.blobs.address import MEMORY, open_blobs
from airunner.broker.blobs.keeper import Blobs
from airunner.broker.blobs.store import BlobStore
from airunner.broker.searcher import run_here
from airunner.certs.secretfile import make_folder
from airunner.protocol.blobs import Blob
from airunner.protocol.cacherequests import RemoveCaches
from airunner.protocol.caches import Cache, SaveWhen
from airunner.protocol.errors import NoSpace, NotFound
from airunner.protocol.events import ProcessError
from airunner.protocol.job import Job, JobState
from airunner.protocol.requests import GetBlob
from tests.agent.playing import PlayedProcess, Stage, staged
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture

CACHE = Cache(name="go", paths=("~/.cache/go", "target"), key=("go.sum",))
NO_FILES = "cache go: its key is that of no files: there is none like go.sum"
NONE_YET = "cache go: none yet in queue default, label default"
VIRTUAL_S = 3_600.0


@pytest.fixture
def store() -> BlobStore:
    return open_blobs(MEMORY)


@asynccontextmanager
async def agent(home: Path, store: BlobStore | None, slots: int = 1) -> AsyncIterator[Stage]:
    make_folder(home)
    async with staged(home, slots, blobs=None if store is None else Blobs(store, [run_here])) as stage:
        with anyio.fail_after(VIRTUAL_S):
            yield stage


@pytest.fixture
async def stage(tmp_path: Path, store: BlobStore) -> AsyncIterator[Stage]:
    async with agent(tmp_path / "agent", store) as stage:
        yield stage


async def next_agent(stage: Stage, home: Path) -> Stage:
    """Another agent of the same broker, when the one before has ended."""
    stage.agent.orders.drain.set()
    await stage.ended.wait()
    (home / SPOOL_FOLDER).mkdir(parents=True)
    return Stage(stage.wire, stage.client, stage.group, replace(stage.plan, home=home), stage.edges, None, None)


def places(process: PlayedProcess) -> tuple[Path, Path]:
    """Where the two folders of the cache are."""
    return Path(process.spec.environment["HOME"]) / ".cache/go", process.spec.working_directory / "target"


def content(process: PlayedProcess) -> list[str]:
    """What the job has got."""
    return [place.joinpath("file").read_text() for place in places(process) if place.exists()]


def remove_versions(home: Path) -> None:
    for folder in home.glob("caches/*-*"):
        shutil.rmtree(folder)


async def ended(stage: Stage, job: Job, process: PlayedProcess, text: str | None, exit_code: int = 0) -> list[str]:
    """The lines of a job that writes `text` into its cache and exits, but for what is said of no files and no cache."""
    for place in places(process):
        if text is not None:
            place.mkdir(parents=True, exist_ok=True)
            (place / "file").write_text(text)
    process.exit(exit_code)
    lines = [event.body.message async for event in stage.client.follow(job.id) if isinstance(event.body, ProcessError)]
    return [line.partition(" in ")[0] for line in lines if line not in (NO_FILES, NONE_YET)]


async def ran(stage: Stage, text: str | None, cache: Cache = CACHE, exit_code: int = 0) -> tuple[list[str], list[str]]:
    """Run a job: what it has got, and its lines."""
    job, process = await stage.begun("make", caches=(cache,))
    return content(process), await ended(stage, job, process, text, exit_code)


async def test_a_key_of_no_files_and_a_cache_that_is_not_there_are_said(stage: Stage) -> None:
    job, process = await stage.begun("make", caches=(CACHE,))
    process.exit(0)
    lines = [event.body.message async for event in stage.client.follow(job.id) if isinstance(event.body, ProcessError)]
    assert lines[:2] == [NO_FILES, NONE_YET]


async def test_a_job_gets_what_the_last_one_has_left(stage: Stage) -> None:
    assert (await ran(stage, "one"))[0] == []
    got, lines = await ran(stage, "two")
    assert (got, lines[0]) == (["one", "one"], "cache go: restored 6 bytes")
    assert (await ran(stage, "two"))[0] == ["two", "two"]
    assert await ran(stage, None) == (["two", "two"], ["cache go: restored 6 bytes"]), "nothing new is saved"
    assert not any(isinstance(request, GetBlob) for request in stage.wire.requests), "all of it came without copying"


async def test_another_agent_gets_what_the_broker_has(tmp_path: Path, store: BlobStore) -> None:
    async with agent(tmp_path / "one", store) as stage:
        lines = (await ran(stage, "one"))[1]
        assert lines[0].startswith("cache go: saved "), lines
        other = await next_agent(stage, tmp_path / "two")
        got, lines = await ran(other, "two")
        assert (got, lines[0]) == (["one", "one"], "cache go: restored 6 bytes")
        assert (await ran(await next_agent(other, tmp_path / "three"), None))[0] == ["two", "two"]


@pytest.mark.parametrize("save", [SaveWhen.ON_SUCCESS, SaveWhen.ALWAYS])
@pytest.mark.parametrize("exit_code", [1, 137])
async def test_what_a_job_that_fails_leaves_is_saved_if_it_is_to_be_and_ended_by_itself(
    stage: Stage, save: SaveWhen, exit_code: int
) -> None:
    cache = Cache(name="go", paths=CACHE.paths, save=save)
    await ran(stage, "whole", cache)
    assert (await ran(stage, "torn", cache, exit_code))[0] == ["whole", "whole"]
    kept = "torn" if (save, exit_code) == (SaveWhen.ALWAYS, 1) else "whole"
    assert (await ran(stage, None, cache))[0] == [kept, kept]


async def test_what_a_job_that_never_saves_leaves_is_seen_by_no_other(stage: Stage) -> None:
    never = Cache(name="go", paths=CACHE.paths, key=CACHE.key, save=SaveWhen.NEVER)
    assert await ran(stage, "poison", never) == ([], [])
    await ran(stage, "one")
    assert (await ran(stage, "poison", never))[0] == ["one", "one"]
    assert (await ran(stage, None, never))[0] == ["one", "one"]
    assert (await ran(stage, None))[0] == ["one", "one"]
    unread = Cache(name="go", paths=CACHE.paths, key=CACHE.key, restore=False)
    assert (await ran(stage, "two", unread))[0] == []
    assert (await ran(stage, None))[0] == ["two", "two"]


async def test_a_job_beside_another_gets_the_last_whole_version(tmp_path: Path, store: BlobStore) -> None:
    async with agent(tmp_path, store, slots=2) as stage:
        await ran(stage, "whole")
        job, process = await stage.begun("make", caches=(CACHE,))
        for place in places(process):
            (place / "file").write_text("torn")
        beside, other = await stage.begun("make", caches=(CACHE,))
        assert content(other) == ["whole", "whole"]
        assert places(other) != places(process)
        await ended(stage, job, process, "one")
        await ended(stage, beside, other, "two")
        assert (await ran(stage, None))[0] == ["two", "two"], "the last that was whole"


async def test_a_place_that_the_repository_has_stays_and_fails_no_job(stage: Stage) -> None:
    await ran(stage, "one")
    job, process = await stage.begun("make", caches=(CACHE,))
    for place in places(process):
        place.joinpath("file").unlink()
        place.rmdir()
        place.write_text("a file")
    process.exit(0)
    lines = [event.body.message async for event in stage.client.follow(job.id) if isinstance(event.body, ProcessError)]
    assert lines[2:] == ["cache go: not saved: ~/.cache/go is no folder"]
    assert (await stage.client.get(job.id)).state is JobState.COMPLETED
    assert (await ran(stage, None))[0] == ["one", "one"]


@pytest.mark.parametrize("blobs", [True, False])
async def test_without_room_at_the_broker_or_without_its_blobs_the_agent_has_its_own(
    tmp_path: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch, *, blobs: bool
) -> None:
    def full(*_: object) -> None:
        raise NoSpace("the blob store is full")

    monkeypatch.setattr(store, "put", full)
    async with agent(tmp_path, store if blobs else None) as stage:
        lines = ["cache go: not saved: the blob store is full"] if blobs else []
        assert await ran(stage, "one") == ([], lines)
        assert await ran(stage, None) == (["one", "one"], ["cache go: restored 6 bytes", *lines])


@pytest.mark.parametrize("save", [SaveWhen.NEVER, SaveWhen.ALWAYS])
async def test_a_version_that_was_removed_from_the_agents_disk_comes_from_the_broker(
    stage: Stage, tmp_path: Path, save: SaveWhen
) -> None:
    await ran(stage, "one")
    remove_versions(tmp_path / "agent")
    assert (await ran(stage, None, Cache(name="go", paths=CACHE.paths, key=CACHE.key, save=save)))[0] == ["one", "one"]


async def test_versions_that_are_removed_at_the_broker_are_not_used(stage: Stage) -> None:
    await ran(stage, "one")
    await stage.client._ask(RemoveCaches())
    assert (await ran(stage, "two"))[0] == []
    assert (await ran(stage, None))[0] == ["two", "two"]


async def test_a_version_whose_pieces_are_lost_is_not_restored_and_is_replaced(
    tmp_path: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent(tmp_path / "one", store) as stage:
        await ran(stage, "one")
        with monkeypatch.context() as patch:

            def gone(*_: object) -> list[Blob]:
                raise NotFound("there is no such blob")

            patch.setattr(store, "get", gone)
            other = await next_agent(stage, tmp_path / "two")
            got, lines = await ran(other, "two")
        assert (got, lines[0]) == ([], "cache go: not restored: there is no such blob")
        assert (await ran(await next_agent(other, tmp_path / "three"), None))[0] == ["two", "two"]


async def test_a_cancelled_job_saves_nothing(stage: Stage) -> None:
    await ran(stage, "whole")
    job, process = await stage.begun("make", caches=(CACHE,))
    for place in places(process):
        (place / "file").write_text("torn")
    await stage.client.cancel(job.id)
    await stage.kinds(job.id)
    assert (await stage.client.get(job.id)).state is JobState.CANCELLED
    assert (await ran(stage, None))[0] == ["whole", "whole"]
