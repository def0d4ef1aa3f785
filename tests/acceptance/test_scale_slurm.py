"""`airunner scale slurm` on a real Slurm of one node, with a real broker and real agents."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from airunner.client.client import Client
from airunner.client.scale.scaler import Scaler, Terms
from airunner.client.scale.slurm import SlurmJobs, lock_scaler
from tests.acceptance.running import Cluster, Process, submitted
from tests.acceptance.scaling import agent_command, run_jobs
from tests.acceptance.slurming import Slurm, running_slurm

# Each step at which a scaler that starts two agents can be killed: a check, a list, and two submissions.
CUTS = [(1, "instead"), (2, "instead"), *((at, cut) for at in (3, 4) for cut in ("instead", "during", "after"))]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with running_slurm() as running:
        yield running


def scaler(cluster: Cluster, script: Path, agents_max: int, environ: dict[str, str], *options: str) -> Process:
    words = ["scale", "slurm", "--script", str(script), "--max", str(agents_max), "--interval", "1", *options]
    return Process(cluster.home, [*words, "--broker", cluster.broker.requests], environ)


def test_from_none_to_five_agents_and_back_for_fifty_jobs(cluster: Cluster, slurm: Slurm) -> None:
    script = slurm.script(f"exec {shlex.join(agent_command(cluster))}")
    scaling = scaler(cluster, script, 5, slurm.environ)
    scaling.line("airunner: scaling queue default")
    assert slurm.jobs() == []
    assert anyio.run(run_jobs, cluster, 50) == {"COMPLETED"}
    slurm.wait_until_empty()
    assert scaling.stop() == 128 + 15
    started = [line.split()[3] for line in scaling.lines if "started agent" in line]
    assert sorted(started) == sorted(slurm.jobs()) == [f"airunner-default-{number}" for number in range(5)]


@pytest.mark.parametrize(("at", "cut"), CUTS)
def test_a_scaler_that_is_killed_at_any_step_and_its_successor_start_no_agent_twice(
    cluster: Cluster, slurm: Slurm, at: int, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"cut-{at}-{cut}"
    script = slurm.script("exec sleep 60")  # an agent that the broker does not know yet
    for _ in range(2):
        submitted(cluster, "--", "true")
    scaler(cluster, script, 5, slurm.cutting(at, cut), "--name", name).wait()
    monkeypatch.setenv("SLURM_CONF", slurm.environ["SLURM_CONF"])
    said: list[str] = []

    async def succeed() -> None:
        lock = await lock_scaler(cluster.home, name, said.append)
        async with Client(cluster.broker.requests, home=cluster.home) as client:
            units = SlurmJobs(script, name, os.environ, lock)
            await Scaler(client, units, Terms(name, "default", 5), said.append).look()
        os.close(lock)

    anyio.run(succeed)
    assert sorted(job for job in slurm.jobs() if job.startswith(name)) == [f"{name}-0", f"{name}-1"], said
    assert any("waiting for another scaler" in line for line in said) == (cut == "during")
    slurm.run("scancel", "--me")


def test_slurm_itself_lets_no_two_agents_of_one_name_run_at_once(slurm: Slurm) -> None:
    units = SlurmJobs(slurm.script("exec sleep 60"), "twins", {**os.environ, **slurm.environ}, os.dup(0))
    for _ in range(2):  # as scalers on two machines may
        assert anyio.run(units.start, "twins-0", None)
    slurm.run("srun", "--job-name=other", "true")  # the scheduler has looked at what was submitted before
    assert sorted(slurm.jobs("--name=twins-0", "--states=running,pending")) == ["twins-0", "twins-0"]
    assert len(slurm.jobs("--name=twins-0", "--states=running")) <= 1
    assert [unit.name for unit in anyio.run(units.units)] == ["twins-0"]
    slurm.run("scancel", "--me")


def test_what_cannot_be_started_is_one_line(cluster: Cluster, slurm: Slurm, tmp_path: Path) -> None:
    def refused(*lines: str, environ: dict[str, str] = slurm.environ) -> str:
        scaling = scaler(cluster, slurm.script(*lines), 1, environ)
        assert scaling.wait() == 64
        return scaling.lines[-1]

    assert "invalid partition specified: nope" in refused("#SBATCH --partition=nope")
    assert "there is no sbatch on the PATH" in refused(environ={"PATH": str(tmp_path)})
