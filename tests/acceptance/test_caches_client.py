"""`airunner cache`: lists, shows and removes what jobs have saved whose tokens have the right, and no others."""

from __future__ import annotations

import json

import anyio

from airunner.client.client import Client
from airunner.protocol.blobs import Slice, packed
from airunner.protocol.cacherequests import PutCache
from airunner.protocol.errors import Forbidden
from airunner.protocol.requests import DequeueJob, HaveBlobs, PutBlob
from tests.acceptance.running import Cluster

KEYS = ("5ac1" * 16, "77" * 32)


def test_what_jobs_have_saved_is_listed_shown_and_removed_and_a_token_without_the_right_saves_nothing(
    cluster: Cluster,
) -> None:
    submit = ("--queue", "ci", "--cache", "go@release", "--no-monitor", "--", "true")
    lesser = cluster.airunner("token", "--subject", "pipeline", "--role", "submit,read").stdout.decode().strip()
    for right in (False, True):
        job = cluster.airunner("submit", *(() if right else ("--token", lesser)), *submit)
        assert job.returncode == 0, job.stderr
        shown = cluster.airunner("show", job.stdout.decode().strip()).stdout.decode()
        assert ("never saved" in shown) != right
        assert saved(cluster) == right
    listed = cluster.airunner("cache", "list").stdout.decode().splitlines()
    assert [line.split()[:4] for line in listed] == [
        ["CACHE", "KEY", "QUEUE", "LABEL"],
        *(["go", key[:12], "ci", "release"] for key in KEYS),
    ]
    [form] = map(json.loads, cluster.airunner("cache", "show", "go", "--key", "77", "--json").stdout.splitlines())
    assert (form["key"], form["size_bytes"]) == (KEYS[1], 8)
    facts = cluster.airunner("cache", "show", "go").stdout.decode()
    assert f"key    {KEYS[0]}\n" in facts
    assert f"by job {form['job_id']}" in facts
    removed = cluster.airunner("cache", "rm", "go", "--label", "release")
    assert (removed.returncode, removed.stderr) == (0, b"airunner: the cache go is removed: 2 versions\n")
    for words in (("rm", "go"), ("show", "go")):
        assert cluster.airunner("cache", *words).returncode == 66
    for words in (("list", "Go"), ("list", "--key", "x"), ("rm", "go", "--queue", "a b"), ("rm", "go", "--label", "L")):
        refused = cluster.airunner("cache", *words)
        assert refused.returncode == 64
        assert b"expected" in refused.stderr


def saved(cluster: Cluster) -> bool:
    """Lease the next job and save two versions for it; return whether the broker has taken them."""

    async def run() -> bool:
        blob = packed(b"manifest")
        index = (Slice(blob.id, 0, 8),)
        async with Client(cluster.broker.requests, home=cluster.home) as client:
            ask = client._entered.channel.ask
            request = DequeueJob(agent="a", queues=("ci",), visibility_ms=300_000, wait_ms=30_000, token_seed=bytes(32))
            lease = (await ask(request)).leases[0].ref
            await ask(HaveBlobs(lease=lease, ids=(blob.id,)))
            await ask(PutBlob(lease=lease, blobs=(blob,)))
            try:
                for key in KEYS:
                    await ask(
                        PutCache(lease=lease, label="release", name="go", key=key, size_bytes=8, index=index, ids=b"")
                    )
            except Forbidden:
                return False
            return True

    return anyio.run(run)
