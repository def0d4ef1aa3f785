"""Anybody can speak to a broker with `zmq`, `msgpack`, `zstd` and docs/PROTOCOL.md: nothing of ours is imported."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from hashlib import blake2b
from os import urandom
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgpack
import pytest
import zmq

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from tests.acceptance.running import RunningBroker  # starts the processes; speaks to nobody
    from tests.fuzz.dealing import Door

ANSWER_MS_MAX = 10_000
LIVE_TOPIC_PERSON = b"airunner topic"

Map = dict[str, Any]
VERSION = b"AR3"


class Plain:
    """A client of sixty lines."""

    def __init__(self, broker: RunningBroker | Door, token: str) -> None:
        self.home = broker.home
        self.token = token.encode()
        self.context = zmq.Context()
        self.dealer = self.socket(zmq.DEALER, broker.requests)
        self.subscriber: zmq.Socket[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.destroy(linger=0)

    def socket(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = self.context.socket(kind)
        socket.linger = 0
        socket.rcvtimeo = ANSWER_MS_MAX
        socket.curve_serverkey = self.key("broker.public")
        socket.curve_publickey = self.key("client.public")
        socket.curve_secretkey = self.key("client.secret")
        if endpoint:
            socket.connect(endpoint)
        return socket

    def key(self, name: str) -> bytes:
        return (self.home / "certs" / name).read_bytes().strip()

    def send(self, request: Map, request_id: bytes | None = None) -> bytes:
        request_id = request_id or urandom(16)
        self.dealer.send_multipart([VERSION, request_id, self.token, msgpack.packb(request)])
        return request_id

    def receive(self) -> tuple[bytes, Map]:
        version, request_id, body = self.dealer.recv_multipart()
        assert version == VERSION
        return request_id, msgpack.unpackb(body)

    def ask(self, request: Map, request_id: bytes | None = None) -> Map:
        request_id = self.send(request, request_id)
        answered, reply = self.receive()
        assert answered == request_id
        return reply

    def subscribe(self, endpoint: str, topic: bytes) -> None:
        self.subscriber = self.socket(zmq.SUB, endpoint)
        self.subscriber.subscribe(topic)
        assert self.subscriber.recv_multipart() == [topic, b""], "you are subscribed"


@pytest.fixture
def plain(broker: RunningBroker, token: str) -> Iterator[Plain]:
    with Plain(broker, token) as client:
        yield client


@pytest.fixture
def token(home: Path) -> str:
    from tests.acceptance.running import airunner

    return airunner(home, "token", "--subject", "plain", "--ttl", "1h").strip()


def events_of(page: Map) -> list[tuple[int, Map]]:
    return [
        (sequence, event)
        for run in page["runs"]
        for sequence, event in enumerate(msgpack.unpackb(run["events"]), start=run["first_sequence"])
    ]


def test_a_job_is_submitted_run_and_replayed_with_nothing_but_zmq_and_msgpack(plain: Plain) -> None:
    assert plain.ask({"type": "Ping"})["type"] == "Pong"
    job_id = submit(plain)
    look_at(plain, job_id)
    watched = plain.ask({"type": "WatchJob", "job_id": job_id})
    topic = blake2b(key=watched["watch_key"], digest_size=16, person=LIVE_TOPIC_PERSON).digest()
    plain.subscribe(f"tcp://127.0.0.1:{watched['events_port']}", topic)
    run(plain, job_id, lease(plain, job_id))
    replay(plain, job_id)
    assert plain.subscriber is not None
    live_topic, sealed = plain.subscriber.recv_multipart()
    assert live_topic == topic
    assert b"JOB_LEASED" not in sealed, "live events are sealed"
    assert len(sealed) > 40


def submit(plain: Plain) -> str:
    request = {"type": "EnqueueJob", "jobs": [{"command": "echo", "args": ["hi"]}]}
    request_id = urandom(16)
    enqueued = plain.ask(request, request_id)
    assert plain.ask(request, request_id) == enqueued, "a repeat is the same job"
    request["jobs"] = [{"command": "other"}]
    [job_id] = enqueued["job_ids"]
    refused = plain.ask(request, request_id)
    assert (refused["code"], job_id in refused["message"]) == ("conflict", True)
    return str(job_id)


def look_at(plain: Plain, job_id: str) -> None:
    listed = plain.ask({"type": "ListJobs"})
    assert [(job["id"], job["state"], job["command"]) for job in listed["jobs"]] == [(job_id, "SCHEDULED", "echo hi")]
    assert not listed["more"]
    assert plain.ask({"type": "GetJob", "job_id": job_id})["job"]["spec"] == {"command": "echo", "args": ["hi"]}


def lease(plain: Plain, job_id: str) -> Map:
    seed = urandom(32)
    request = {
        "type": "DequeueJob",
        "agent": "plain",
        "queues": ["default"],
        "visibility_ms": 60_000,
        "token_seed": seed,
    }
    request_id = urandom(16)
    leased = plain.ask(request, request_id)
    [granted] = leased["leases"]
    assert granted["zstd"], "this broker takes compressed events"
    assert plain.ask(request, request_id) == leased, "a repeat is the same lease"
    assert granted["task_token"] == blake2b(f"{job_id}\n1".encode(), key=seed, digest_size=32).digest()
    held = {"job_id": job_id, "attempt": 1, "task_token": granted["task_token"]}
    kept = plain.ask({"type": "UpdateJob", "leases": [held], "visibility_ms": 60_000})
    assert kept["leases"] == [{"job_id": job_id, "attempt": 1, "verdict": "kept"}]
    return held


def run(plain: Plain, job_id: str, held: Map) -> None:
    now_ms = time.time_ns() // 1_000_000
    said = [
        {"kind": "PROCESS_START", "timestamp_ms": now_ms, "pid": 7, "started_at": now_ms},
        {"kind": "OUTPUT", "timestamp_ms": now_ms, "stream": "stdout", "data": b"hi\n\xff"},
    ]
    batch = {"lease": held, "first_index": 0, "count": 2, "events": msgpack.packb(said)}
    stored = [{"job_id": job_id, "attempt": 1, "next_index": 2}]
    publish = {"type": "PublishJobEvents", "batches": [batch]}
    assert plain.ask(publish)["batches"] == stored
    assert plain.ask(publish)["batches"] == stored, "a repeat is ignored"
    end = [{"kind": "PROCESS_END", "timestamp_ms": now_ms, "pid": 7, "exit_code": 0}]
    complete = {"type": "CompleteJob", "lease": held, "event_count": 3, "result": {"exit_code": 0}}
    assert plain.ask(complete)["code"] == "incomplete-log"
    last = {"lease": held, "first_index": 2, "count": 1, "events": msgpack.packb(end)}
    together = {"type": "PublishJobEvents", "batches": [last], "completions": [complete]}
    completed = {"type": "JobCompleted", "state": "COMPLETED"}
    for _ in range(2):
        assert plain.ask(together)["completions"] == [completed]
    assert plain.ask(complete) == completed


def test_events_that_are_compressed_are_given_to_readers_as_they_ask_for_them(plain: Plain) -> None:
    [job_id] = plain.ask({"type": "EnqueueJob", "jobs": [{"command": "make"}]})["job_ids"]
    held = lease(plain, job_id)
    written = msgpack.packb([{"kind": "OUTPUT", "timestamp_ms": 1, "stream": "stdout", "data": b"a line\n" * 1_000}])
    frame = zstd.compress(written, 1)
    batch = {"lease": held, "first_index": 0, "count": 1, "events": frame}
    publish = {"type": "PublishJobEvents", "batches": [batch]}
    assert plain.ask(publish)["batches"] == [{"job_id": job_id, "attempt": 1, "next_index": 1}]
    replay = {"type": "ReplayJobEvents", "job_id": job_id, "from_sequence": 3}
    assert [run["events"] for run in plain.ask(replay)["runs"]] == [written]
    assert [run["events"] for run in plain.ask({**replay, "zstd": True})["runs"]] == [frame]
    plain.ask({"type": "ReleaseJob", "lease": held})
    plain.ask({"type": "CancelJob", "job_id": job_id})


def replay(plain: Plain, job_id: str) -> None:
    page = plain.ask({"type": "ReplayJobEvents", "job_id": job_id})
    assert page["finished"]
    assert page["next_sequence"] == page["last_sequence"] + 1
    numbered = events_of(page)
    assert [sequence for sequence, _ in numbered] == [1, 2, 3, 4, 5, 6]
    kinds = ["JOB_SCHEDULED", "JOB_LEASED", "PROCESS_START", "OUTPUT", "PROCESS_END", "JOB_FINISHED"]
    assert [event["kind"] for _, event in numbered] == kinds
    assert numbered[3][1]["data"] == b"hi\n\xff"
    later = plain.ask({"type": "ReplayJobEvents", "job_id": job_id, "from_sequence": 4})
    assert events_of(later) == numbered[3:]
