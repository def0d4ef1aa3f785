"""Submission of a job with its tree: what the broker has is not sent, and one request does everything then."""

from __future__ import annotations

from pathlib import Path
from random import Random

import anyio
import pytest

from airunner.broker import requests
from airunner.broker.requests import KINDS
from airunner.client.treesubmission import prepare_tree, submit_tree
from airunner.client.uploading import SMALL_BYTES_MAX
from airunner.protocol.blobs import PIECE_BYTES_MAX
from airunner.protocol.errors import BadRequest, Conflict, NoBlobs
from airunner.protocol.fields import JobSpec
from airunner.protocol.names import RequestId
from airunner.protocol.treerequest import EnqueueJobWithTree
from tests.client.wire import brokered
from tests.client.working import blobs_in_memory
from tests.virtualtime import real_time  # noqa: F401 - a fixture: a tree is read in threads, which no virtual clock sees

JOB = JobSpec(command="wc", repository="/here", commit="1" * 40)
ID = RequestId(bytes(15) + b"1")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    file = tmp_path / "bundle"
    file.write_bytes(b"a bundle" * 1_000)
    return file


async def test_a_tree_that_the_broker_has_is_submitted_in_one_request(bundle: Path) -> None:
    async with brokered(blobs_in_memory()) as (wire, client):
        first = await submit_tree(client, JOB, await prepare_tree(client, bundle))
        assert wire.asked[1:] == ["EnqueueJobWithTree", "PutBlob", "EnqueueJob"], "behind a Ping"
        wire.requests.clear()
        second = await submit_tree(client, JOB, await prepare_tree(client, bundle))
        assert wire.asked == ["EnqueueJobWithTree"]
        specs = [(await client.get(job)).spec for job in (first, second)]
    assert first.id != second.id
    assert specs[0] == specs[1]


async def test_the_same_tree_under_the_same_request_id_is_the_same_job(bundle: Path) -> None:
    async with brokered(blobs_in_memory()) as (_, client):
        jobs = [await submit_tree(client, JOB, await prepare_tree(client, bundle), request_id=ID) for _ in range(2)]
        assert jobs[0].id == jobs[1].id
        other = bundle.parent / "other"
        await anyio.Path(other).write_bytes(b"another")
        with pytest.raises(Conflict):
            await submit_tree(client, JOB, await prepare_tree(client, other), request_id=ID)


async def test_a_tree_goes_with_a_standard_input_and_may_be_large(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airunner.client.uploading.WINDOW", 2)
    content = Random(0).randbytes(3 * PIECE_BYTES_MAX)
    await anyio.Path(bundle).write_bytes(content)
    assert len(content) > SMALL_BYTES_MAX
    async with brokered(blobs_in_memory()) as (wire, client):
        await submit_tree(client, JOB, await prepare_tree(client, bundle))
        asked = wire.asked
        assert [asked.count(kind) for kind in ("HaveBlobs", "PutBlob", "EnqueueJobWithTree")] == [2, 4, 1]
        wire.requests.clear()
        job = await submit_tree(client, JOB, await prepare_tree(client, bundle), stdin=b"input")
        assert set(wire.asked) == {"HaveBlobs", "EnqueueJobWithStdin"}
        tree = (await client.get(job)).spec.tree
    assert tree is not None
    assert tree.size_bytes == len(content)


async def test_a_broker_that_takes_no_tree_refuses_it_in_words(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with brokered() as (_, client):
        with pytest.raises(NoBlobs):
            await submit_tree(client, JOB, await prepare_tree(client, bundle))
    monkeypatch.setattr(requests, "request_decoder", requests.request_decoder.__wrapped__)
    monkeypatch.delitem(KINDS, EnqueueJobWithTree)
    async with brokered() as (_, client):
        with pytest.raises(BadRequest, match="too old"):
            await submit_tree(client, JOB, await prepare_tree(client, bundle))
