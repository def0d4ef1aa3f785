"""Neither the logs of broker and agent nor the metrics tell a secret, a token or who is at which end of a socket."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from os import urandom
from urllib.request import urlopen

import pytest
import zmq

from tests.acceptance.holding import dequeue, example, proof_of
from tests.acceptance.running import Cluster, airunner
from tests.acceptance.test_plain_msgpack import Plain

pytestmark = pytest.mark.timeout(120)

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
        assert peer.ask({"type": "GetJob", "job_id": job_id})["code"] == "unauthenticated"
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
