"""What a tenant has too much of is refused with `quota`, and other tenants go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

from tests.acceptance.holding import RIGHT, handshake, token
from tests.acceptance.running import RunningBroker, metrics, running_broker
from tests.acceptance.test_plain_msgpack import Map, Plain


@contextmanager
def two_tenants(home: Path, *bounds: str) -> Iterator[tuple[RunningBroker, Plain, Plain]]:
    """A broker with these bounds, and a peer of each tenant."""
    with (
        running_broker(home, "memory:", *bounds) as broker,
        Plain(broker, token(broker, "a")) as one,
        Plain(broker, token(broker, "b")) as other,
    ):
        yield broker, one, other


def submit(peer: Plain, *words: str) -> Map:
    return peer.ask({"type": "EnqueueJob", "jobs": [{"command": "true", "args": words}]})


def test_jobs_that_wait_and_jobs_that_are_listened_to_are_bounded_for_each_tenant(home: Path) -> None:
    with two_tenants(home, "--tenant-waiting", "3", "--tenant-watched", "1") as (_, one, other):
        job_ids = [submit(one)["job_ids"][0] for _ in range(3)]
        assert submit(one)["code"] == "quota"
        (others,) = submit(other)["job_ids"]
        watching = [one.ask({"type": "WatchJob", "job_id": job_id}) for job_id in job_ids[:2]]
        assert (watching[0]["type"], watching[1].get("code")) == ("JobWatched", "quota")
        assert other.ask({"type": "WatchJob", "job_id": others})["type"] == "JobWatched"


MANY = 30  # more than may come at once, and what is added meanwhile


def test_what_a_tenant_asks_for_and_keeps_and_a_machine_connects_is_bounded_for_each_alone(home: Path) -> None:
    public, secret = zmq.curve_keypair()
    with (home / "certs" / "allowed-clients").open("ab") as allowed:
        allowed.write(public + b" other client\n")
    bounds = ("--tenant-gib", "0.000001", "--tenant-requests", "6", "--machine-connections", "1")
    with two_tenants(home, *bounds) as (broker, one, other):
        assert submit(one, "x" * 2_000)["type"] == "JobsEnqueued"
        full = submit(one)
        assert (full["code"], "bytes" in full["message"]) == ("quota", True)
        for _ in range(MANY):
            one.send({"type": "GetJob", "job_id": "none"})
        answers = [one.receive()[1] for _ in range(MANY)]
        assert {answer["code"] for answer in answers} == {"not-found", "quota"}
        assert submit(other)["type"] == "JobsEnqueued"
        crowd = [one.socket(zmq.DEALER, broker.requests) for _ in range(MANY)]
        while crowd and not metrics(broker.http)["airunner_peers_deferred_total"]:
            pass  # until they have knocked
        others = {name: one.key(file) for name, file in RIGHT.items()}
        others.update(curve_publickey=public, curve_secretkey=secret)
        assert handshake(one.context, broker.requests, others) == zmq.EVENT_HANDSHAKE_SUCCEEDED


def test_without_tokens_all_is_the_default_tenants_and_keys_still_guard_the_door(home: Path) -> None:
    with running_broker(home, None, "--no-auth") as broker:
        assert any(line.startswith("warning: --no-auth") for line in broker.process.lines)
        words = ("", "no token at all", token(broker, "another"))
        for peer in (Plain(broker, word) for word in words):
            assert submit(peer)["type"] == "JobsEnqueued"
            public, secret = zmq.curve_keypair()
            stranger = {"curve_serverkey": peer.key("broker.public"), "curve_publickey": public}
            event = handshake(peer.context, broker.requests, {**stranger, "curve_secretkey": secret})
            assert event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
            peer.context.destroy(linger=0)
    with running_broker(home) as broker:
        for tenant, jobs in (("default", len(words)), ("another", 0)):
            peer = Plain(broker, token(broker, tenant))
            assert len(peer.ask({"type": "ListJobs"})["jobs"]) == jobs
            peer.context.destroy(linger=0)
