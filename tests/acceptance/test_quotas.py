"""What a tenant has too much of is refused with `quota`, and other tenants go on."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pytest

from tests.acceptance.running import RunningBroker, airunner, running_broker
from tests.acceptance.test_plain_msgpack import LIVE_TOPIC_PERSON, Map, Plain

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def broker(home: Path) -> Iterator[RunningBroker]:
    with running_broker(home, "memory:", "--tenant-waiting", "3", "--tenant-watched", "1") as running:
        yield running


@pytest.fixture
def peers(broker: RunningBroker) -> Iterator[tuple[Plain, Plain]]:
    """Two tenants."""
    words = [airunner(broker.home, "token", "--subject", "s", "--tenant", tenant).strip() for tenant in ("a", "b")]
    first, second = (Plain(broker, token) for token in words)
    yield first, second
    for one in (first, second):
        one.context.destroy(linger=0)


def submit(peer: Plain) -> Map:
    return peer.ask({"type": "EnqueueJob", "jobs": [{"command": "true"}]})


def test_jobs_that_wait_and_jobs_that_are_listened_to_are_bounded_for_each_tenant(peers: tuple[Plain, Plain]) -> None:
    one, other = peers
    job_ids = [submit(one)["job_ids"][0] for _ in range(3)]
    assert submit(one)["code"] == "quota"
    (others,) = submit(other)["job_ids"]
    watched = one.ask({"type": "WatchJob", "job_id": job_ids[0]})
    topic = blake2b(key=watched["watch_key"], digest_size=16, person=LIVE_TOPIC_PERSON).digest()
    one.subscribe(f"tcp://127.0.0.1:{watched['events_port']}", topic)
    assert one.ask({"type": "WatchJob", "job_id": job_ids[1]})["code"] == "quota"
    assert one.ask({"type": "WatchJob", "job_id": job_ids[0]}) == watched
    assert other.ask({"type": "WatchJob", "job_id": others})["type"] == "JobWatched"
    assert one.subscriber is not None
    one.subscriber.unsubscribe(topic)
    while one.ask({"type": "WatchJob", "job_id": job_ids[1]})["type"] != "JobWatched":
        pass  # the broker hears of it on another socket
