"""What nobody may learn: secrets and passwords on disks, screens and wires, tokens in logs, other tenants' events."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import closing
from os import urandom
from pathlib import Path
from urllib.request import urlopen

import anyio
import apsw
import pytest
import zmq
from anyio.abc import TaskStatus

from airunner import Client
from airunner.certs.sealed import open_sealed, topic_of
from airunner.protocol.errors import Forged
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import decode_spec, encode_spec
from tests.acceptance.holding import dequeue, example, proof_of
from tests.acceptance.running import Cluster, airunner
from tests.acceptance.test_plain_msgpack import Plain
from tests.agent.checkout.repositories import git, new_repository
from tests.agent.checkout.serving import HttpServer, over_http

JOBS = 100
QUEUE = "very-secret-queue"
WELCOME = b"sixteen bytes..."
SAID = "very secret words"


def test_a_listener_to_everything_learns_no_byte_of_anothers_jobs(cluster: Cluster) -> None:
    overheard: list[bytes] = []
    known: list[str] = []
    words = airunner(cluster.home, "token", "--subject", "eve", "--tenant", "stranger").strip()
    with Plain(cluster.broker, words) as stranger:
        ear = stranger.socket(zmq.SUB, cluster.broker.events)
        ear.subscribe(b"")
        ear.subscribe(WELCOME)
        assert ear.recv_multipart() == [WELCOME, b""], "both subscriptions stand, in their order"
        (mine,) = stranger.ask({"type": "EnqueueJob", "jobs": [{"command": "true"}]})["job_ids"]
        key = stranger.ask({"type": "WatchJob", "job_id": mine})["watch_key"]

        async def follow(client: Client, job_id: str, *, task_status: TaskStatus[None]) -> None:
            async for event in client.follow(job_id):
                assert event.job_id == job_id
                if event.sequence == 1:
                    task_status.started()

        async def run() -> None:
            async with Client(cluster.broker.requests, home=cluster.home) as client:
                spec = JobSpec(command="echo", args=(SAID,), queue=QUEUE)
                async with anyio.create_task_group() as group:
                    for first in range(0, JOBS, 50):
                        for job in await client.submit_many([spec] * min(50, JOBS - first)):
                            known.append(job.id)
                            await group.start(follow, client, job.id)
                    cluster.agent("--queue", QUEUE, spawn=4)  # now, so that their events are announced to followers

        anyio.run(run)
        (last,) = stranger.ask({"type": "EnqueueJob", "jobs": [{"command": "true", "queue": "nobodys"}]})["job_ids"]
        end = topic_of(stranger.ask({"type": "WatchJob", "job_id": last})["watch_key"])
        stranger.subscribe(cluster.broker.events, end)
        assert stranger.ask({"type": "CancelJob", "job_id": last})["state"] == "CANCELLED"
        while (frames := ear.recv_multipart())[0] != end:  # what is announced is announced in order
            overheard += frames
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


ROUTING_ID = b"routing-id-of-mine"
SECRET = "a-secret-of-the-job"
PRINTED = "what-the-job-prints"
PIECE_BYTES = 12  # of a token: more than any word of ours has in common with one
A_TOKEN = re.compile(rb"eyJ[\w-]{10,}")
FORGED = "eyJhbGciOiJub25lIn0.eyJmb3JnZWQiOjF9.forged-token"


def test_logs_and_metrics_tell_nothing_that_opens_anything(cluster: Cluster) -> None:
    agent = cluster.agent(spawn=2)
    token = airunner(cluster.home, "token", "--subject", "test").strip()
    with Plain(cluster.broker, token) as peer:
        peer.dealer.close()
        peer.dealer = peer.socket(zmq.DEALER, "")
        peer.dealer.routing_id = ROUTING_ID
        peer.dealer.connect(cluster.broker.requests)
        job = {"command": "echo", "args": [PRINTED], "environment": {"API_TOKEN": SECRET}}
        (job_id,) = peer.ask({"type": "EnqueueJob", "jobs": [job]})["job_ids"]
        watch_key = peer.ask({"type": "WatchJob", "job_id": job_id})["watch_key"]
        assert cluster.airunner("monitor", job_id).returncode == 0
        queued = {"command": "true", "queue": "mine"}
        assert peer.ask({"type": "EnqueueJob", "jobs": [queued]})["type"] == "JobsEnqueued"
        seed = urandom(32)
        (lease,) = peer.ask(dequeue("mine", seed))["leases"]
        proof = proof_of(lease)
        for name in ("UpdateJob", "PublishJobEvents", "ReleaseJob"):
            peer.ask(example(name, proof))
            peer.ask(example(name, {**proof, "attempt": 2}))
        peer.token = FORGED.encode()
        refused = peer.ask({"type": "GetJob", "job_id": job_id})
        assert (refused["code"], FORGED in refused["message"]) == ("unauthenticated", False)
        peer.token = token.encode()
        assert peer.ask({"type": "no such thing"})["code"] == "bad-request"
        with urlopen(f"http://{cluster.broker.http}/metrics", timeout=10) as answer:
            metrics = answer.read()
    assert agent.stop() == 0
    cluster.broker.stop()
    told = "\n".join([*cluster.broker.process.lines, *agent.lines]).encode() + metrics
    assert job_id.encode() in told, "the agent's log says what it runs"
    assert b"airunner_" in metrics
    assert not A_TOKEN.search(told)
    keys = [path.read_bytes().strip() for path in (cluster.home / "certs").glob("*.secret*")]
    words = [*keys, ROUTING_ID, SECRET.encode(), PRINTED.encode(), watch_key, seed, lease["task_token"]]
    for piece in (*words, *pieces(token), *pieces(FORGED)):
        for form in forms(piece):
            assert form not in told, piece


def pieces(token: str) -> Iterator[bytes]:
    """Every part of a token that would tell something of it."""
    words = token.encode()
    return (words[start : start + PIECE_BYTES] for start in range(len(words) - PIECE_BYTES + 1))


def forms(word: bytes) -> Iterator[bytes]:
    """As bytes, as Python shows them, in hex, and in base64 beside whatever else."""
    yield word
    yield repr(word)[2:-1].encode()
    yield word.hex().encode()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + word)
        inner = encoded[4 * (before > 0) : len(encoded) - 4]  # what does not depend on its neighbours
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


PASSWORD = "hun'ter\"22"
UNCLEAR = "https://user:hun/ter2@127.0.0.1:9/p.git"
TELLING = r"""printf "$AIRUNNER_REPOSITORY\nhun\047ter\04222\n"; git remote -v"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpServer]:
    folder = tmp_path / "served"
    new_repository(folder / "p")
    git(folder, "clone", "--quiet", "--bare", "p", "p.git")
    git(folder / "p.git", "update-server-info")
    with over_http(folder, f"user:{PASSWORD}") as server:
        yield server


def test_a_password_with_quotes_opens_the_repository_and_is_seen_nowhere(cluster: Cluster, server: HttpServer) -> None:
    cluster.agent()
    url = f"http://user:{PASSWORD}@{server.authority}/p.git"
    done = cluster.airunner("submit", "--json", url, "--", "sh", "-c", TELLING)
    assert done.returncode == 0, done.stderr
    job_id = json.loads(done.stdout.splitlines()[-1])["job_id"]
    for words in (["show", job_id], ["list", "--json"], ["monitor", job_id]):
        done_too = cluster.airunner(*words)
        done.stdout += done_too.stdout + done_too.stderr
    shown = f"http://[REDACTED]@{server.authority}/p.git"
    assert shown.encode() in done.stdout
    assert b"\n[REDACTED]\n" in done.stdout, "what the job wrote itself"
    assert PASSWORD[-5:].encode() not in done.stdout.replace(b"\\", b"")


def test_one_that_an_earlier_release_has_stored_is_hidden_and_not_run_again(cluster: Cluster) -> None:
    job_id = cluster.airunner("submit", "--no-monitor", "https://host/x", "--", "true").stdout.decode().strip()
    assert cluster.airunner("cancel", job_id).returncode == 0
    cluster.broker.stop()
    with closing(apsw.Connection(str(cluster.home / "broker" / "airunner.db"))) as store:
        ((spec,),) = store.execute("SELECT spec FROM job WHERE job_id = ?", (job_id,))
        assert isinstance(spec, bytes)
        assert decode_spec(spec).repository == "https://host/x"
        store.execute("UPDATE job SET spec = ?", (encode_spec(JobSpec(command="true", repository=UNCLEAR)),))
    cluster.broker.start()
    shown = cluster.airunner("show", job_id).stdout + cluster.airunner("list", "--json").stdout
    again = cluster.airunner("retry", "--no-monitor", job_id)
    assert b"https://[REDACTED]" in shown
    assert again.returncode == 64
    assert b"cannot be submitted again" in again.stderr
    assert b"ter2" not in shown + again.stdout + again.stderr
