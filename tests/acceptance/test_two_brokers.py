"""Two brokers are as one: submitted here, run there, watched and cancelled anywhere; without a bus a little later.

How fast is measured by `make bench ONLY=fleet`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.brokers import cut_bus, make_homes, running_brokers
from tests.acceptance.running import Cluster, Gate, metrics, start, submit, submitted

LINES = 300


@pytest.fixture(params=[False, True], ids=["bus", "cut"])
def cut(request: pytest.FixtureRequest) -> bool:
    """Whether the brokers hear nothing of one another."""
    assert isinstance(request.param, bool)
    return request.param


@pytest.fixture
def brokers(store: str, tmp_path: Path, *, cut: bool) -> Iterator[list[Cluster]]:
    """Two brokers that know each other."""
    homes = make_homes(tmp_path / "home", 2)
    if cut:
        cut_bus(homes)
    with running_brokers(homes, store) as found:
        if cut:
            for one in found:
                one.broker.process.line("airunner broker: degraded: peers:")
        yield found


def sequences(monitor: subprocess.Popen[bytes]) -> Iterator[tuple[int, str]]:
    """Number and kind of each event that a monitor shows."""
    assert monitor.stdout is not None
    for line in monitor.stdout:
        event = json.loads(line)
        yield event["sequence"], event["kind"]


def test_a_job_runs_where_an_agent_waits_and_is_watched_and_cancelled_anywhere(
    brokers: list[Cluster], gate: Gate, *, cut: bool
) -> None:
    here, there = brokers
    here.agent("--visibility-timeout", "30" if cut else "300")  # a third of it later it sends a heartbeat by itself
    done = there.airunner("submit", "--", "echo", "hello")
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    job_id = submit(there, f"{gate.script}; for n in $(seq {LINES}); do echo $n; done")
    gate.wait()
    with start(there.environ, "monitor", "--json", job_id, stdout=subprocess.PIPE) as monitor:
        shown = sequences(monitor)
        numbers = [next(shown)[0]]
        gate.open(1)
        numbers += [number for number, _ in shown]
    assert numbers == list(range(1, len(numbers) + 1))
    assert monitor.returncode == 0
    endless = submitted(there, "--", "sleep", "1000")
    with start(there.environ, "monitor", "--json", endless, stdout=subprocess.PIPE) as monitor:
        assert any(kind == "PROCESS_START" for _, kind in sequences(monitor))
        there.airunner("cancel", endless)
        assert list(sequences(monitor))[-1][1] == "JOB_FINISHED"
    assert json.loads(here.airunner("show", "--json", endless).stdout)["state"] == "CANCELLED"
    with start(there.environ, "list", "--watch", "--json", "-n", "2", stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        jobs = map(json.loads, watching.stdout)
        assert {next(jobs)["id"], next(jobs)["id"]} == {job_id, endless}
        mine = submit(here, "exit 3")
        assert any((job["id"], job["state"]) == (mine, "FAILED") for job in jobs)
        watching.kill()
    counted = metrics(here.broker.http)
    assert (counted["airunner_announced_total"] == 0) is cut, "only the other broker's monitors listen"
    assert (counted["airunner_hints_heard_total"] == 0) is cut
