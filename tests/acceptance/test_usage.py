"""What a job has used, measured by a real agent, from its log to `show` and `list`."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.acceptance.running import Cluster

BURN_MS = 200
BURN = f"import time\nwhile time.process_time() < {BURN_MS / 1_000}: pass"


@pytest.mark.timeout(60)  # six processes of airunner, one after the other
def test_what_a_job_used_is_in_its_log_in_show_and_in_lists(standing: Cluster) -> None:
    script = f"printf abc; printf de >&2; {sys.executable} -c '{BURN}'; exit 3"
    done = standing.airunner("submit", "--json", "--", "sh", "-c", script)
    assert done.returncode == 3
    job_id, *events = map(json.loads, done.stdout.splitlines())
    [end] = [event for event in events if event["kind"] == "PROCESS_END"]
    shown: dict[str, Any] = json.loads(standing.airunner("show", "--json", job_id["job_id"]).stdout)
    used = shown["result"]["usage"]
    assert used == {**end["usage"], "events": len([event for event in events if "JOB_" not in event["kind"]])}
    assert (used["stdout_bytes"], used["stderr_bytes"]) == (3, 2)
    assert used.get("cpu_user_ms", 0) + used.get("cpu_system_ms", 0) >= BURN_MS
    assert used["memory_peak_bytes"] > 1 << 20
    assert shown["waited_ms"] <= shown["finished_ms"] - shown["submitted_ms"]
    listed = standing.airunner("list", "--columns", "id,events,stdout").stdout.decode().splitlines()
    assert listed[1].split() == [job_id["job_id"], str(used["events"]), "3", "bytes"]
