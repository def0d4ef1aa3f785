"""Job records: a job with all that it needs to run again, as a file."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import ZipFile

import pytest

from airunner.client.jobrecord import JobRecord, read_record, record_of, write_record
from airunner.client.savedpieces import offer_save
from airunner.client.uploading import ask_of, put_blobs
from airunner.protocol.blobs import SavedWorkspace, Slice, packed, unpacked
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import GitCloneEnd
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.savemanifest import Entry, Manifest, encode
from tests.client.wire import brokered
from tests.client.working import Worker, blobs_in_memory
from tests.virtualtime import real_time  # noqa: F401 - a fixture: a tree is read in threads, which no virtual clock sees


async def test_a_record_is_the_same_from_its_file(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(b"a bundle" * 1_000)
    (tmp_path / "there").mkdir()
    async with brokered(blobs_in_memory()) as (_, client):
        tree = await client.upload(bundle)
        spec = JobSpec(command="wc", repository="/here", commit="1" * 40, environment={"LEVEL": "3"}, tree=tree)
        job = await client.submit(spec, stdin=b"input")
        record = await record_of(client, job.id, tmp_path)
        assert record.bundle is not None
        assert record.bundle.read_bytes() == bundle.read_bytes()
        assert (record.job_id, record.stdin, record.commit) == (job.id, b"input", "")
        pieces: list[bytes] = []
        write_record(record, pieces.append)
        (tmp_path / "file").write_bytes(b"".join(pieces))
    found = read_record(tmp_path / "file", tmp_path / "there")
    assert found.bundle is not None
    assert found.bundle.read_bytes() == bundle.read_bytes()
    expected = JobRecord(job_id=job.id, spec=record.spec, stdin=b"input", bundle=tmp_path / "there/tree.bundle")
    assert found == expected
    fields = {"command": "wc", "repository": "/here", "commit": "1" * 40, "environment": {"LEVEL": "3"}}
    assert found.fields({}) == fields


async def test_the_commit_is_the_one_that_was_checked_out(tmp_path: Path) -> None:
    async with brokered() as (_, client):
        job = await client.submit(command="true", repository="/here", branch="main")
        worker = await Worker.lease(client)
        await worker.publish(GitCloneEnd(timestamp_ms=0, commit="2" * 40, duration_ms=1))
        record = await record_of(client, job.id, tmp_path)
    fields = {"command": "true", "repository": "/here", "branch": "main", "commit": "2" * 40}
    assert record.fields({}) == fields


async def test_a_save_that_the_broker_has_lost_is_not_recorded_and_what_to_do_is_said(tmp_path: Path) -> None:
    async with brokered(blobs_in_memory()) as (_, client):
        origin = await client.submit(command="true")
        await client.cancel(origin.id)
        saved = SavedWorkspace(job_id=origin.id, slices=(Slice(bytes(32), 0, 1),))
        job = await client.submit(JobSpec(command="true", continues=saved))
        with pytest.raises(OperatorError, match=f"job {origin.id} has saved is not whole .*: run that job again, and"):
            await record_of(client, job.id, tmp_path)


async def test_a_record_has_the_save_in_which_its_job_begins(tmp_path: Path) -> None:
    pieces = [packed(b"one" * 1_000), packed(b"two")]
    files = (Entry(f"checkout/{at}", 0o644, 0, 3, "", (Slice(piece.id, 0, 3),)) for at, piece in enumerate(pieces * 2))
    manifest = packed(encode(Manifest(("checkout",), tuple(files))))
    (tmp_path / "there").mkdir()
    async with brokered(blobs_in_memory()) as (_, client):
        await put_blobs(ask_of(client), bytes(16), [manifest, *pieces])
        origin = await client.submit(command="true")
        await client.cancel(origin.id)
        saved = SavedWorkspace(job_id=origin.id, slices=(Slice(manifest.id, 0, len(unpacked(manifest))),))
        job = await client.submit(JobSpec(command="true", continues=saved))
        record = await record_of(client, job.id, tmp_path)
    written: list[bytes] = []
    write_record(record, written.append)
    (tmp_path / "file").write_bytes(b"".join(written))
    found = read_record(tmp_path / "file", tmp_path / "there")
    assert found.spec.continues == saved
    assert found.save is not None
    async with brokered(blobs_in_memory()) as (wire, client):
        here = await offer_save(client, saved, found.save)
        assert (await client.get(here.job_id)).state is JobState.CANCELLED
        assert here.slices == saved.slices
        wire.requests.clear()
        await put_blobs(ask_of(client), bytes(16), [manifest, *pieces])
        assert wire.asked == ["HaveBlobs"], "all of it is there"
        (tmp_path / "torn").write_bytes(found.save.read_bytes()[:-1])
        with pytest.raises(OperatorError, match="is damaged"):
            await offer_save(client, saved, tmp_path / "torn")


@pytest.mark.parametrize("content", [b"nothing", b"{}"])
def test_what_is_no_record_is_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    with ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("job.json", content)
    (tmp_path / "file").write_bytes(content)
    os.mkfifo(tmp_path / "pipe")  # nobody writes into it
    for name in ("archive", "file", "pipe"):
        with pytest.raises(OperatorError, match=f"{name} is no record of a job") as raised:
            read_record(tmp_path / name, tmp_path)
        assert "\n" not in raised.value.message
    with pytest.raises(OperatorError, match="cannot read"):
        read_record(tmp_path / "missing", tmp_path)
