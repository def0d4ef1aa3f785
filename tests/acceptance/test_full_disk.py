"""A broker whose disk is full keeps and ends what runs, answers who reads, and says how it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.acceptance.gate import submitted
from tests.acceptance.mounting import small_disk
from tests.acceptance.running import Cluster, RunningBroker

pytestmark = pytest.mark.timeout(90)  # a lease of six seconds has to be renewed while the disk is full

FLOOD = "head -c 40000000 /dev/zero | tr '\\0' x; sleep 600"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "24m") as mounted:
        yield mounted


@pytest.fixture
def cluster(home: Path, disk: Path) -> Iterator[Cluster]:
    running = Cluster(RunningBroker(home, f"sqlite:///{disk}/airunner.db", "--reserve-mib", "4"))
    try:
        yield running
    finally:
        running.close()


def shown(cluster: Cluster, job_id: str) -> dict[str, object]:
    done = cluster.airunner("show", "--json", job_id)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def health(cluster: Cluster) -> dict[str, object]:
    asked = Request(f"http://{cluster.broker.http}/health", headers={"Accept": "application/json"})
    with urlopen(asked) as response:
        return json.loads(response.read())


def test_a_flood_fills_the_store_and_ends_nobody_elses_job(cluster: Cluster) -> None:
    agent = cluster.agent("--visibility-timeout", "6", spawn=2)
    assert health(cluster) == {"status": "ok"}
    quiet = submitted(cluster, "--", "sleep", "9")
    flood = submitted(cluster, "--", "sh", "-c", FLOOD)
    agent.line("the broker's disk has no room for events now")
    assert health(cluster)["status"] == "degraded"
    refused = cluster.airunner("submit", "--no-monitor", "--", "true")
    assert (refused.returncode, b"disk" in refused.stderr) == (69, True)
    watched = cluster.airunner("monitor", quiet)
    assert watched.returncode == 0
    assert (shown(cluster, quiet)["state"], shown(cluster, quiet)["attempt"]) == ("COMPLETED", 1)
    assert cluster.airunner("cancel", flood).returncode == 0
    assert b"bytes of output were left out here" in cluster.airunner("monitor", flood).stderr
    assert (shown(cluster, flood)["state"], shown(cluster, flood)["attempt"]) == ("CANCELLED", 1)
