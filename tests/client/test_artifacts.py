"""Artifacts by `Client`: listed, read, and written into a folder, from a broker that keeps blobs."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from random import Random

import anyio
import msgspec
import pytest

from airunner.client import artifacts as client_artifacts
from airunner.client.artifactfiles import ArtifactFile, NoArtifact
from airunner.client.client import Client
from airunner.protocol.blobs import PIECE_BYTES_MAX, Blob, Slice, blob_id, packed
from airunner.protocol.errors import CorruptLog, Forged, NoBlobs, NotFound, OperatorError
from airunner.protocol.events import Artifact
from airunner.protocol.requests import GetBlob
from airunner.transport.files import pieces as blob_pieces
from tests.client.wire import Wire, brokered
from tests.client.working import Worker, blobs_in_memory
from tests.virtualtime import real_time  # noqa: F401 - a fixture: files are written in threads, which no virtual clock sees


async def leased(client: Client) -> tuple[str, Worker]:
    job = await client.submit(command="true")
    return job.id, await Worker.lease(client)


def tree(folder: Path) -> dict[str, object]:
    """Everything below a folder: contents of files, targets of links, and modes of folders."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = path.readlink()
        else:
            found[name] = path.read_bytes() if path.is_file() else stat.S_IMODE(path.stat().st_mode)
    return found


def asked_blobs(wire: Wire) -> list[bytes]:
    return [blob for request in wire.requests if isinstance(request, GetBlob) for blob in request.ids]


async def test_files_are_listed_by_path_while_the_job_runs_and_a_later_one_replaces_an_earlier() -> None:
    async with brokered(blobs_in_memory()) as (_, client):
        job, worker = await leased(client)
        assert await client.artifacts(job) == []
        await worker.leave(b_txt=b"old", a_txt=b"")
        await worker.leave(b_txt=b"new one")
        await worker.print(b"output\n")
        files = await client.artifacts(job)
        assert [(file.path, file.kind, file.size_bytes, file.attempt) for file in files] == [
            ("a.txt", "file", 0, 1),
            ("b.txt", "file", 7, 1),
        ]
        assert [piece async for piece in client.read_artifact(job, "b.txt")] == [b"new one"]
        assert [piece async for piece in client.read_artifact(job, "a.txt")] == []
        with pytest.raises(NotFound):
            await client.artifacts("another")


async def test_files_are_those_of_the_last_attempt_that_has_left_any() -> None:
    async with brokered(blobs_in_memory()) as (_, client):
        job = await client.submit(command="false", retry={"limit": 2, "backoff_s": 0})
        first = await Worker.lease(client)
        await first.leave(old_txt=b"1", both_txt=b"1")
        await first.complete(1)
        second = await Worker.lease(client, bytes([2]) * 32)
        assert [file.path for file in await client.artifacts(job)] == ["both.txt", "old.txt"]
        await second.leave(both_txt=b"2")
        [file] = await client.artifacts(job)
        assert (file.path, file.attempt) == ("both.txt", 2)


async def test_what_is_fetched_is_what_was_left(tmp_path: Path) -> None:
    async with brokered(blobs_in_memory()) as (_, client):
        job, worker = await leased(client)
        await worker.leave(dist__deep__a_txt=b"a" * 10, dist__b_txt=b"b" * 20, empty=b"")
        await worker.publish(
            Artifact(timestamp_ms=0, path="logs/", mode=0o750),
            Artifact(timestamp_ms=0, path="dist/latest", target="deep/a.txt"),
            Artifact(timestamp_ms=0, path="run.sh", mode=0o751),
        )
        seen: list[tuple[int, int]] = []
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "run.sh").write_text("something that was there")
        fetched = await client.fetch(
            job, folder=tmp_path / "out", progress=lambda files, size: seen.append((files, size))
        )
        assert fetched == await client.artifacts(job)
        assert seen[-1] == (6, 30)
        folder = stat.S_IMODE((tmp_path / "out").stat().st_mode)
        assert tree(tmp_path / "out") == {
            "dist": folder,
            "dist/deep": folder,
            "dist/deep/a.txt": b"a" * 10,
            "dist/b.txt": b"b" * 20,
            "dist/latest": Path("deep/a.txt"),
            "empty": b"",
            "logs": 0o750,
            "run.sh": b"",
        }
        assert stat.S_IMODE((tmp_path / "out" / "run.sh").stat().st_mode) == 0o751
        before = tree(tmp_path / "out")
        await client.fetch(job, folder=str(tmp_path / "out"))
        assert tree(tmp_path / "out") == before


async def test_a_pattern_chooses_files_and_one_that_matches_nothing_names_close_ones(tmp_path: Path) -> None:
    async with brokered(blobs_in_memory()) as (_, client):
        job, worker = await leased(client)
        await worker.leave(dist__a_whl=b"1", dist__old__b_whl=b"2", report_xml=b"3")
        chosen = await client.fetch(job, ["dist/*.whl", "report.xml"], tmp_path)
        assert [file.path for file in chosen] == ["dist/a.whl", "report.xml"]
        assert [file.path for file in await client.fetch(job, ["dist"], tmp_path)] == ["dist/a.whl", "dist/old/b.whl"]
        with pytest.raises(NoArtifact, match=r"the job has no file reprot.xml; it has report.xml and more") as raised:
            await client.fetch(job, ["dist", "reprot.xml"], tmp_path)
        assert raised.value.exit_code == 66
        with pytest.raises(OperatorError, match="dist is a folder: name a file in it"):
            await client.read_artifact(job, "dist").next_batch()
        with pytest.raises(NoArtifact):
            await client.read_artifact(job, "dist/none").next_batch()


async def test_each_piece_is_requested_once_however_many_files_share_it(tmp_path: Path) -> None:
    async with brokered(blobs_in_memory()) as (wire, client):
        job, worker = await leased(client)
        random = Random(7)
        pieces = [random.randbytes(40_000) for _ in range(40)]
        await worker.put(*pieces)
        shared = [Slice(blob_id(piece), 100, 39_000) for piece in pieces]
        for name in "abc":
            await worker.publish(
                Artifact(timestamp_ms=0, path=name, size_bytes=40 * 39_000, slices=tuple(shared)),
            )
        await client.fetch(job, folder=tmp_path)
        asked = asked_blobs(wire)
        assert sorted(asked) == sorted(blob_id(piece) for piece in pieces)
        assert 1 < wire.asked.count("GetBlob") < 20, "several in a request, once it is known how small they are"
        expected = b"".join(piece[100:39_100] for piece in pieces)
        assert [(tmp_path / name).read_bytes() == expected for name in "abc"] == [True] * 3


async def test_pieces_that_are_not_kept_are_requested_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_pieces, "KEPT_BYTES_MAX", 100_000)
    async with brokered(blobs_in_memory()) as (_, client):
        job, worker = await leased(client)
        random = Random(8)
        pieces = [random.randbytes(30_000) for _ in range(20)]
        await worker.put(*pieces)
        order = [random.choice(pieces) for _ in range(200)]
        slices = tuple(Slice(blob_id(piece), 0, 30_000) for piece in order)
        await worker.publish(Artifact(timestamp_ms=0, path="x", size_bytes=200 * 30_000, slices=slices))
        await client.fetch(job, folder=tmp_path)
        assert (tmp_path / "x").read_bytes() == b"".join(order)


async def test_a_large_file_has_an_index_of_its_pieces(tmp_path: Path) -> None:
    async with brokered(blobs_in_memory()) as (_, client):
        job, worker = await leased(client)
        pieces = [bytes([number]) * PIECE_BYTES_MAX for number in range(3)]
        slices = [Slice(blob_id(pieces[number % 3]), number, 1_000) for number in range(3_000)]
        index = msgspec.msgpack.encode(slices)
        await worker.put(*pieces, index[:50_000], index[50_000:])
        of_index = (
            Slice(blob_id(index[:50_000]), 0, 50_000),
            Slice(blob_id(index[50_000:]), 0, len(index) - 50_000),
        )
        await worker.publish(Artifact(timestamp_ms=0, path="large", size_bytes=3_000_000, index=of_index))
        await worker.publish(Artifact(timestamp_ms=0, path="wrong", size_bytes=1, index=of_index[:1]))
        too_long = tuple(Slice(blob_id(pieces[0]), 0, PIECE_BYTES_MAX) for _ in range(17))
        await worker.publish(Artifact(timestamp_ms=0, path="long", size_bytes=1, index=too_long))
        await client.fetch(job, ["large"], tmp_path)
        expected = b"".join(bytes([number % 3]) * 1_000 for number in range(3_000))
        assert (tmp_path / "large").read_bytes() == expected
        with pytest.raises(Forged, match="wrong: its list of pieces cannot be decoded"):
            await client.fetch(job, ["wrong"], tmp_path)
        with pytest.raises(Forged, match="long: its list of pieces has 17,825,792 bytes"):
            await client.fetch(job, ["long"], tmp_path)


@pytest.mark.parametrize(
    ("file", "error", "message"),
    [
        (ArtifactFile(path="x", size_bytes=9, slices=(Slice(bytes(32), 0, 9),)), CorruptLog, "x: a piece of it is not"),
        (ArtifactFile(path="x", size_bytes=9, slices=(Slice(blob_id(b"12345678"), 0, 9),)), Forged, "fewer than its"),
        (ArtifactFile(path="x", size_bytes=9, slices=(Slice(blob_id(b"12345678"), 0, 8),)), Forged, "8 bytes, not 9"),
    ],
)
async def test_a_file_that_is_not_whole_is_refused_and_leaves_nothing_behind(
    tmp_path: Path, file: ArtifactFile, error: type[Exception], message: str
) -> None:
    async with brokered(blobs_in_memory()) as (_, client):
        job, worker = await leased(client)
        await worker.put(b"12345678")
        with pytest.raises(error, match=message):
            await client.fetch(job, [file], tmp_path)
        assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "changed",
    [
        lambda blobs: (Blob(blobs[0].id, packed(b"another").content),),
        lambda _: (packed(b"another"),),
        lambda blobs: (Blob(blobs[0].id, b"no frame"),),
        lambda _: (),
    ],
    ids=["content", "id", "frame", "none"],
)
async def test_content_that_the_broker_has_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Callable[[tuple[Blob, ...]], tuple[Blob, ...]]
) -> None:
    async with brokered(blobs_in_memory()) as (_, client):
        job, worker = await leased(client)
        await worker.leave(x=b"12345678")
        channel = client._entered.channel
        ask = channel.ask

        async def asked(request: object, **options: object) -> object:
            reply = await ask(request, **options)  # type: ignore[arg-type]
            return msgspec.structs.replace(reply, blobs=changed(reply.blobs)) if isinstance(request, GetBlob) else reply

        monkeypatch.setattr(channel, "ask", asked)
        with pytest.raises(Forged, match="x: "):
            await client.fetch(job, folder=tmp_path)
        assert tree(tmp_path) == {}


async def test_a_broker_that_keeps_no_files_says_so(tmp_path: Path) -> None:
    async with brokered() as (_, client):
        job, _ = await leased(client)
        file = ArtifactFile(path="x", size_bytes=9, slices=(Slice(bytes(32), 0, 9),))
        with pytest.raises(NoBlobs, match="the broker keeps no files of jobs"):
            await client.fetch(job, [file], tmp_path)


async def test_reading_that_is_left_early_ends_its_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    async with brokered(blobs_in_memory()) as (wire, client):
        job, worker = await leased(client)
        pieces = [Random(number).randbytes(PIECE_BYTES_MAX) for number in range(12)]
        await worker.put(*pieces)
        slices = tuple(Slice(blob_id(piece), 0, PIECE_BYTES_MAX) for piece in pieces)
        await worker.publish(Artifact(timestamp_ms=0, path="x", size_bytes=12 * PIECE_BYTES_MAX, slices=slices))
        channel = client._entered.channel
        ask = channel.ask
        ended: list[str] = []

        async def asked(request: object, **options: object) -> object:
            if isinstance(request, GetBlob) and request.ids[0] != slices[0].blob:
                try:
                    await anyio.Event().wait()
                finally:
                    ended.append("GetBlob")
            return await ask(request, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(channel, "ask", asked)
        async with client.read_artifact(job, "x") as reading:
            assert await reading.next_batch() == pieces[:1]
            assert ended == []
        await anyio.wait_all_tasks_blocked()
        assert len(ended) == blob_pieces.REQUESTS_MAX - 1
        assert asked_blobs(wire) == [slices[0].blob]


def test_the_index_of_a_file_is_bounded_before_it_is_decoded() -> None:
    with pytest.raises(msgspec.DecodeError):
        client_artifacts._index_decoder.decode(b"\xdd\xff\xff\xff\xff")
