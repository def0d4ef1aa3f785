"""Caches of jobs: a real agent gives a job what the last one has left, and one that is killed leaves nothing torn."""

from __future__ import annotations

from tests.acceptance.cachekills import Kills, Point
from tests.acceptance.running import Cluster, submitted


def test_the_next_job_gets_the_last_whole_version_whatever_is_killed(cluster: Cluster) -> None:
    kills = Kills(cluster, seed=1)
    for point in Point:
        kills.round(point)


def test_another_agent_gets_large_files_from_the_broker(cluster: Cluster) -> None:
    first = cluster.agent()
    make = "mkdir ~/.x; head -c 5000000 /dev/urandom > ~/.x/file; cp ~/.x/file ~/.x/copy; cksum < ~/.x/file"
    job_id = submitted(cluster, "--cache", "x:~/.x", "--", "sh", "-c", make)
    before = cluster.airunner("monitor", job_id).stdout
    first.stop()
    home = cluster.home / "agent/1/caches"
    assert home.is_dir()
    home.rename(cluster.home / "agent/1/none")  # as another machine's agent has none
    cluster.agent()
    job_id = submitted(cluster, "--cache", "x:~/.x", "--", "sh", "-c", "cmp ~/.x/file ~/.x/copy && cksum < ~/.x/file")
    assert cluster.airunner("monitor", job_id).stdout == before != b""
