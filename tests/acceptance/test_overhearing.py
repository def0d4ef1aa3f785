"""Who listens to everything on the events socket learns nothing of another tenant's jobs."""

from __future__ import annotations

import base64

import anyio
import pytest
import zmq

from airunner import Client
from airunner.certs.sealed import open_sealed, topic_of
from airunner.protocol.errors import Forged
from airunner.protocol.fields import JobSpec
from tests.acceptance.running import Cluster, airunner
from tests.acceptance.test_plain_msgpack import Plain

pytestmark = pytest.mark.timeout(120)

JOBS = 100
QUEUE = "very-secret-queue"
WELCOME = b"sixteen bytes..."
SAID = "very secret words"


def test_a_listener_to_everything_learns_no_byte_of_anothers_jobs(cluster: Cluster) -> None:
    cluster.agent("--queue", QUEUE, spawn=4)
    stranger = Plain(
        cluster.broker, airunner(cluster.home, "token", "--subject", "eve", "--tenant", "stranger").strip()
    )
    overheard: list[bytes] = []
    known: list[str] = []
    try:
        ear = stranger.socket(zmq.SUB, cluster.broker.events)
        ear.subscribe(b"")
        ear.subscribe(WELCOME)
        assert ear.recv_multipart() == [WELCOME, b""], "both subscriptions stand, in their order"
        (mine,) = stranger.ask({"type": "EnqueueJob", "jobs": [{"command": "true"}]})["job_ids"]
        key = stranger.ask({"type": "WatchJob", "job_id": mine})["watch_key"]

        async def follow(client: Client, job_id: str) -> None:
            async for event in client.follow(job_id):
                assert event.job_id == job_id

        async def run() -> None:
            async with Client(cluster.broker.requests, home=cluster.home) as client:
                spec = JobSpec(command="echo", args=(SAID,), queue=QUEUE)
                async with anyio.create_task_group() as group:
                    for first in range(0, JOBS, 50):
                        for job in await client.submit_many([spec] * min(50, JOBS - first)):
                            known.append(job.id)
                            group.start_soon(follow, client, job.id)

        anyio.run(run)
        (last,) = stranger.ask({"type": "EnqueueJob", "jobs": [{"command": "true", "queue": "nobodys"}]})["job_ids"]
        end = topic_of(stranger.ask({"type": "WatchJob", "job_id": last})["watch_key"])
        stranger.subscribe(cluster.broker.events, end)
        assert stranger.ask({"type": "CancelJob", "job_id": last})["state"] == "CANCELLED"
        while (frames := ear.recv_multipart())[0] != end:  # what is announced is announced in order
            overheard += frames
    finally:
        stranger.context.destroy(linger=0)
    assert len(known) == JOBS
    assert sum(len(frame) > 16 for frame in overheard) >= JOBS, "they were announced"
    everything = b"\n".join(overheard)
    for word in (*known, QUEUE, SAID, "PROCESS_START", "JOB_FINISHED"):
        plain = word.encode()
        for form in (plain, plain.hex().encode(), base64.b64encode(plain).rstrip(b"=")[:-1]):
            assert form not in everything, word
    for frame in overheard:
        with pytest.raises(Forged):
            open_sealed(key, frame)
