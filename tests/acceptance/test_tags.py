"""Jobs go to agents that have what they require, and wait where none has."""

from __future__ import annotations

import json

import pytest

from tests.acceptance.gate import events, submit, submitted
from tests.acceptance.running import Cluster

pytestmark = pytest.mark.timeout(60)


def test_a_job_that_nobody_may_run_holds_up_no_other_and_is_run_once_somebody_may(cluster: Cluster) -> None:
    cluster.agent("--name", "plain", spawn=2)
    needing = submitted(cluster, "--require", "os=linux", "--", "true")
    assert list(events(cluster, submit(cluster, "true")))[-1]["state"] == "COMPLETED"
    shown = json.loads(cluster.airunner("show", "--json", needing).stdout)
    assert (shown["state"], shown["spec"]["require"]) == ("SCHEDULED", {"os": "linux"})
    cluster.agent("--name", "able", "--tag", "os=linux")
    assert list(events(cluster, needing))[-1]["state"] == "COMPLETED"
    agents = {agent["name"]: agent.get("tags", {}) for agent in listed(cluster)}
    assert agents == {"plain": {}, "able": {"os": "linux"}}


def listed(cluster: Cluster) -> list[dict[str, object]]:
    return [json.loads(line) for line in cluster.airunner("agents", "--json").stdout.splitlines()]
