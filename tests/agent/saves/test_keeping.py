"""Saved workspaces on a stage: what is saved of a workspace, when, and what a job finds that begins in one."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import anyio
import pytest

from airunner.agent.artifacts.tree import Tree
from airunner.agent.artifacts.uploading import Uplink
from airunner.agent.launcher.offloading import offload
from airunner.agent.saves import looking
from airunner.agent.saves.restoring import BrokersBlobs, clear
from airunner.broker.blobs.address import MEMORY, open_blobs
from airunner.broker.blobs.keeper import Blobs
from airunner.broker.blobs.store import BlobStore
from airunner.broker.searcher import run_here
from airunner.protocol.blobs import PIECE_BYTES_MAX, SavedWorkspace, Slice, packed, unpacked
from airunner.protocol.errors import Forged, NoSpace, Unauthenticated
from airunner.protocol.events import Event, GitCloneError, Kept, ProcessError
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, Reason
from airunner.protocol.names import JobId
from airunner.protocol.replies import BlobsGot
from airunner.protocol.requests import GetBlob, PutBlob
from airunner.protocol.requestsize import RequestSize
from airunner.protocol.savemanifest import Entry, Manifest, decode, encode, places_of
from tests.agent.playing import PlayedProcess, Stage, staged
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from airunner.transport.channel import Channel

TENANT = "default"
VIRTUAL_S = 3_600.0
MINUTE_S = 60


@pytest.fixture
def store() -> BlobStore:
    return open_blobs(MEMORY)


@pytest.fixture
async def stage(tmp_path: Path, store: BlobStore) -> AsyncIterator[Stage]:
    """An agent of a broker with blobs, which keeps 4 MiB of a workspace."""
    blobs = Blobs(store, [run_here])
    async with staged(tmp_path, blobs=blobs, artifact_bytes_max=4 * PIECE_BYTES_MAX) as stage:
        with anyio.fail_after(VIRTUAL_S):
            yield stage


@pytest.fixture
def certain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the file system has moved on since each file was written."""
    monkeypatch.setattr(looking, "_tick", lambda _: 1 << 62)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files that are read from now on."""
    read: list[str] = []
    chunks = Tree.chunks

    def noted(tree: Tree, path: str) -> Iterator[bytes]:
        read.append(path)
        return chunks(tree, path)

    monkeypatch.setattr(Tree, "chunks", noted)
    return read


def manifest(store: BlobStore, kept: Kept) -> Manifest:
    pieces = [unpacked(store.get(TENANT, [part.blob])[0])[part.offset :][: part.length] for part in kept.slices]
    return decode(b"".join(pieces))


def saves(log: list[object]) -> list[Kept]:
    return [body for body in log if isinstance(body, Kept)]


def said(log: list[object]) -> list[str]:
    return [body.message for body in log if isinstance(body, ProcessError | GitCloneError)]


async def logged(stage: Stage, job_id: str) -> list[object]:
    return [event.body async for event in stage.client.follow(JobId(job_id))]


async def saved(stage: Stage, job_id: str) -> None:
    """Wait until the workspace of a job is saved while it runs: virtual time goes on meanwhile."""
    assert "KEPT" in [event.kind async for event in _until_saved(stage, job_id)]


async def _until_saved(stage: Stage, job_id: str) -> AsyncIterator[Event]:
    async for event in stage.client.follow(JobId(job_id)):
        yield event
        if isinstance(event.body, Kept):
            return


def folder_of(process: PlayedProcess) -> Path:
    return process.spec.working_directory


async def test_the_workspace_is_saved_at_the_end_and_every_now_and_then(stage: Stage, store: BlobStore) -> None:
    job, process = await stage.begun("make", keep=("out", "~/.state"), keep_every_seconds=MINUTE_S)
    folder = folder_of(process)
    (folder / "out/empty").mkdir(parents=True)
    (folder / "out/.file").write_bytes(b"first")
    (folder / "other").write_bytes(b"not kept")
    await saved(stage, job.id)
    (folder / "out/.file").write_bytes(b"second")
    (folder / "out/link").symlink_to("/nowhere")
    state = Path(process.spec.environment["HOME"]) / ".state"
    state.write_bytes(b"home")
    process.exit(3)
    log = await logged(stage, job.id)
    first, last = (manifest(store, kept) for kept in saves(log))
    assert [entry.path for entry in first.entries] == ["checkout/out/", "checkout/out/.file", "checkout/out/empty/"]
    assert first.paths == last.paths == ("checkout/out", "home/.state")
    found = {entry.path: entry for entry in last.entries}
    assert found.keys() == {*(entry.path for entry in first.entries), "checkout/out/link", "home/.state"}
    assert (found["checkout/out/link"].target, found["checkout/out/.file"].size_bytes) == ("/nowhere", 6)
    assert [line.partition(" in ")[0] for line in said(log)] == ["workspace saved: 3 files, 10 bytes"]
    assert (await stage.client.get(job.id)).state is JobState.FAILED


@pytest.mark.usefixtures("certain")
async def test_what_has_not_changed_is_neither_read_nor_sent_again(
    stage: Stage, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, process = await stage.begun("make", keep=(".",), keep_every_seconds=MINUTE_S)
    folder = folder_of(process)
    for name in "abc":
        (folder / name).write_bytes(os.urandom(PIECE_BYTES_MAX))
    (folder / ".git").mkdir()
    (folder / ".git/config").write_bytes(b"the repository's own")
    await saved(stage, job.id)
    sent = sum(isinstance(request, PutBlob) for request in stage.wire.requests)
    read = reads(monkeypatch)
    (folder / "b").write_bytes(b"changed")
    process.exit(0)
    first, last = (manifest(store, kept) for kept in saves(await logged(stage, job.id)))
    assert read == ["checkout/b"]
    assert sum(isinstance(request, PutBlob) for request in stage.wire.requests) == sent + 2, "it and the manifest"
    assert [entry.path for entry in last.entries] == ["checkout/a", "checkout/b", "checkout/c"]
    assert [first.entries[at].slices == last.entries[at].slices for at in range(3)] == [True, False, True]


async def test_a_file_that_was_changed_in_the_tick_of_the_look_is_read_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_tick", lambda _: 0)  # all of them were
    read = reads(monkeypatch)
    job, process = await stage.begun("make", keep=("file",), keep_every_seconds=MINUTE_S)
    (folder_of(process) / "file").write_bytes(b"first")
    await saved(stage, job.id)
    process.exit(0)
    assert len(saves(await logged(stage, job.id))) == 2
    assert read == ["checkout/file"] * 2


async def test_a_save_that_fails_leaves_the_one_before(stage: Stage, store: BlobStore) -> None:
    job, process = await stage.begun("make", keep=("file",), keep_every_seconds=MINUTE_S)
    file = folder_of(process) / "file"
    file.write_bytes(b"small")
    await saved(stage, job.id)
    file.write_bytes(bytes(4 * PIECE_BYTES_MAX + 1))
    process.exit(0)
    log = await logged(stage, job.id)
    (kept,) = saves(log)
    assert manifest(store, kept).entries[0].size_bytes == len(b"small")
    assert said(log) == [
        "the workspace is not saved: it has more than 0.00390625 GiB, which `airunner agent --artifact-gib` allows"
    ]
    assert (await stage.client.get(job.id)).state is JobState.COMPLETED


async def test_a_broker_without_room_delays_a_save_and_the_job_goes_on(
    stage: Stage, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, refusals = store.put, 5

    def full(*arguments: object) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise NoSpace
        put(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "put", full)
    job, process = await stage.begun("make", keep=("file",), keep_every_seconds=MINUTE_S)
    (folder_of(process) / "file").write_bytes(b"x")
    await saved(stage, job.id)
    process.exit(0)
    log = await logged(stage, job.id)
    assert said(log)[0].startswith("saved workspaces wait for the broker: the broker's disk is full")
    assert manifest(store, saves(log)[-1]).entries[0].size_bytes == 1


async def test_what_is_no_file_is_left_out_of_a_save_with_a_word(stage: Stage, store: BlobStore) -> None:
    job, process = await stage.begun("make", keep=("out", "missing", "loop/x"))
    folder = folder_of(process)
    (folder / "out").mkdir()
    (folder / "loop").symlink_to(folder / "out")
    (folder / "out/x").write_bytes(b"x")
    os.mkfifo(folder / "out/pipe")
    (folder / "out" / os.fsdecode(b"caf\xe9")).write_bytes(b"")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"/proc/self/fd/{os.open(folder / 'out', os.O_PATH)}/socket")
    process.exit(0)
    log = await logged(stage, job.id)
    assert [entry.path for entry in manifest(store, saves(log)[0]).entries] == ["checkout/out/", "checkout/out/x"]
    assert said(log)[0].splitlines() == [
        "the saved workspace lacks:",
        "  checkout/loop/x: a file or a link is on its path",
        "  checkout/missing: nothing is there",
        "  checkout/out/caf\ufffd: its name is not UTF-8",
        "  checkout/out/pipe: it is no file",
        "  checkout/out/socket: it is no file",
    ]


async def begun_in(stage: Stage, job_id: str, kept: Kept, **fields: object) -> PlayedProcess:
    """A job that begins in a save."""
    spec = JobSpec(command="make", continues=SavedWorkspace(job_id=job_id, slices=kept.slices), **fields)  # type: ignore[arg-type]
    number = len(stage.launcher.started) + 1
    await stage.client.submit(spec)
    return await stage.launcher.process(number)


@pytest.mark.usefixtures("certain")
async def test_a_job_begins_in_a_save_and_saves_only_what_it_changes(stage: Stage, store: BlobStore) -> None:
    job, process = await stage.begun("make", keep=("out",))
    (folder_of(process) / "out/empty").mkdir(parents=True)
    for name in "ab":
        (folder_of(process) / f"out/{name}").write_bytes(name.encode() * 1_000)
    (folder_of(process) / "out/a").chmod(0o700)
    process.exit(0)
    (kept,) = saves(await logged(stage, job.id))
    process = await begun_in(stage, job.id, kept, keep=("out",))
    out = folder_of(process) / "out"
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "empty"]
    assert ((out / "a").read_bytes(), (out / "a").stat().st_mode & 0o777) == (b"a" * 1_000, 0o700)
    (out / "b").unlink()
    before = len(stage.wire.requests)
    process.exit(0)
    job_id = (await stage.client.list_page()).jobs[0].id
    log = await logged(stage, job_id)
    assert said(log)[0].startswith("workspace restored: 2 files, 2.0 KiB in ")
    first, last = manifest(store, kept), manifest(store, saves(log)[0])
    assert {entry.path: entry.slices for entry in last.entries} == {
        entry.path: entry.slices for entry in first.entries if entry.path != "checkout/out/b"
    }
    assert sum(isinstance(request, PutBlob) for request in stage.wire.requests[before:]) == 1, "the manifest"


def put(store: BlobStore, manifest: bytes, *pieces: bytes) -> Kept:
    """A save that is made by hand."""
    blobs = [packed(piece) for piece in (manifest, *pieces)]
    store.put(TENANT, blobs)
    return Kept(timestamp_ms=0, files=1, size_bytes=1, slices=(Slice(blobs[0].id, 0, len(manifest)),))


PIECE = Slice(packed(b"x").id, 0, 1)
LOST = Slice(bytes(32), 0, 1)


@pytest.mark.parametrize(
    ("raw", "said_of_it"),
    [
        (b"nothing", "the list of its files cannot be decoded"),
        (encode(Manifest(("checkout/../x",), ())), "checkout/../x is no path of a workspace"),
        (encode(Manifest(("tmp",), ())), "tmp is no path of a workspace"),
        (encode(Manifest((), (Entry("../x", 0o600, 0, 1, slices=(PIECE,)),))), "leads out of the folder"),
        (encode(Manifest((), (Entry("checkout/x", 0o600, 0, 2, slices=(PIECE,)),))), "has 1 bytes, not 2"),
        (
            encode(Manifest((), (Entry("checkout/x", 0o600, 0, 1, slices=(LOST,)),))),
            "is not in the broker's blob store",
        ),
    ],
)
async def test_a_save_that_is_broken_fails_the_job_before_its_command(
    stage: Stage, store: BlobStore, raw: bytes, said_of_it: str
) -> None:
    job, process = await stage.begun("make")
    process.exit(0)
    await logged(stage, job.id)
    saved = SavedWorkspace(job_id=job.id, slices=put(store, raw, b"x").slices)
    broken = await stage.client.submit(JobSpec(command="make", continues=saved))
    log = await logged(stage, broken.id)
    assert said(log)[0].startswith(f"the workspace of job {job.id} is not restored: ")
    assert said_of_it in said(log)[0]
    result = (await stage.client.get(broken.id)).result
    assert result is not None
    assert result.reason is Reason.CHECKOUT_FAILED
    assert len(stage.launcher.started) == 1


@pytest.mark.parametrize("way", ["file", "link"])
@pytest.mark.parametrize("kept", [True, False])
def test_what_is_in_the_way_of_what_is_kept_is_removed_and_nothing_that_a_link_leads_to(
    tmp_path: Path, way: str, *, kept: bool
) -> None:
    (tmp_path / "checkout/there/inner").mkdir(parents=True)
    place = tmp_path / "checkout/way"
    place.touch() if way == "file" else place.symlink_to("there")
    entries = (Entry("checkout/way/inner/", 0o700, 0),) if kept else ()
    clear(tmp_path, Manifest(("checkout/way/inner",), entries))
    assert os.path.lexists(place) != kept
    assert (tmp_path / "checkout/there/inner").is_dir()


def test_paths_below_others_are_kept_once() -> None:
    assert places_of(["a/b", "./a", "a", "~", "~/x", "ab/"]) == ("checkout/a", "checkout/ab", "home")
    assert places_of([".", "a"]) == ("checkout",)
    with pytest.raises(Forged):
        decode(encode(Manifest(("x",), ()))[:-1])


class Away:
    """A channel to a broker that refuses the first requests for blobs."""

    request_size = RequestSize()

    def __init__(self, refusals: int) -> None:
        self._refusals = refusals

    async def ask(self, request: GetBlob, **_: object) -> BlobsGot:
        self._refusals -= 1
        if self._refusals >= 0:
            raise Unauthenticated("the token has expired")
        return BlobsGot(blobs=tuple(packed(b"piece") for _ in request.ids))


async def test_the_log_says_once_that_files_wait_for_the_broker() -> None:
    said: list[str] = []
    blobs = BrokersBlobs(Uplink(cast("Channel", Away(3)), offload, float), said.append)
    for _ in range(2):
        assert len((await blobs.ask(GetBlob(ids=(packed(b"piece").id,)))).blobs) == 1
    assert said == ["files wait for the broker: the token has expired"]
