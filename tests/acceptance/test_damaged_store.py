"""One corrupt page of one finished job's log costs that log, and neither the broker nor another job."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.acceptance.running import Cluster
from tests.broker.store.sqlite.damaging import damage_page_with

pytestmark = pytest.mark.timeout(60)  # a dozen processes are started, one after the other
PRINTS = "import sys\nfor n in range(400): print(f'{sys.argv[1]}-{n:04}-' * 30)"


def test_the_damaged_log_is_refused_in_words_and_everything_else_is_served(cluster: Cluster, home: Path) -> None:
    agent = cluster.agent()
    broken, whole = (_done(cluster, word) for word in ("broken", "whole"))
    cluster.broker.kill()
    path = home / "broker" / "airunner.db"
    damage_page_with(path, b"broken-0", of_one_value=True)
    checked = cluster.airunner("store", "check")
    assert checked.returncode == 1
    assert broken.encode() in checked.stdout + checked.stderr
    assert whole.encode() not in checked.stdout + checked.stderr
    broker = cluster.broker.start()
    for _ in range(2):
        refused = cluster.airunner("monitor", broken)
        assert refused.returncode == 1
        assert b"airunner store check" in refused.stderr.splitlines()[-1]
    assert cluster.airunner("monitor", whole).stdout.count(b"\n") == 400
    assert _done(cluster, "new")
    with urlopen(f"http://{cluster.broker.http}/health") as response:
        assert response.read().startswith(b"degraded\nstore: part of the store cannot be read")
    assert broker.running
    assert agent.running


def _done(cluster: Cluster, word: str) -> str:
    done = cluster.airunner("submit", "--", sys.executable, "-c", PRINTS, word)
    assert done.returncode == 0, done.stderr
    return done.stderr.decode().split()[2]
