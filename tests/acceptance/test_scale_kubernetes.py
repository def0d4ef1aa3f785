"""`airunner scale kubernetes` with a real broker and real agents, on a real kube-apiserver where there is one.

Everywhere it runs on an API server of the tests' own too. `scripts/kubeapiserver.py` builds a real one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from airunner.client.client import Client
from airunner.client.scale.kubernetes.access import find_access
from airunner.client.scale.kubernetes.api import JobsApi
from airunner.client.scale.kubernetes.jobs import KubernetesJobs
from airunner.client.scale.kubernetes.template import LABEL, read_template
from airunner.client.scale.scaler import Scaler, Terms
from tests.acceptance.kubeapi import JOBS, NAMESPACE, Kube, apiserver, fake, real
from tests.acceptance.kubedoor import door_before
from tests.acceptance.kubelet import complete, running_kubelet
from tests.acceptance.running import (
    REPOSITORY,
    Cluster,
    Process,
    environment,
    make_home,
    run,
    running_broker,
    submitted,
)
from tests.acceptance.scaling import agent_command, run_jobs

# A scaler that replaces an ended Job and adds one asks: a dry run, two lists, a deletion, and two creations.
CUTS = [(1, "before"), (2, "before"), *((at, cut) for at in (3, 4, 5, 6) for cut in ("before", "after"))]
DEPLOYED = REPOSITORY / "deploy" / "kubernetes"
CUTS += [(at, "late") for at in (4, 5, 6)]


@pytest.fixture(scope="module", params=["fake", "real"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    if request.param == "real" and apiserver() is None:
        pytest.skip("no kube-apiserver with etcd here: run scripts/kubeapiserver.py, and install Debian's etcd-server")
    folder = tmp_path_factory.mktemp("kube")
    with fake() if request.param == "fake" else real(folder) as running:
        yield running


@pytest.fixture
def kube(server: Kube) -> Iterator[Kube]:
    yield server
    server.clear()


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker with two jobs that no agent will run."""
    make_home(home := tmp_path_factory.mktemp("waiting") / "home")
    with running_broker(home, "memory:") as broker:
        cluster = Cluster(broker)
        for _ in range(2):
            submitted(cluster, "--", "true")
        yield cluster


def template(folder: Path, command: list[str], **spec: object) -> Path:
    """The manifest of a Job that runs a command."""
    container = {"name": "agent", "image": "airunner", "command": command[:1], "args": command[1:]}
    pod = {"spec": {"restartPolicy": "Never", "containers": [container], **spec}}
    path = folder / "job.yaml"
    path.write_text(json.dumps({"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": pod}}))
    return path


def scaler(cluster: Cluster, kubeconfig: Path, job: Path, *options: str) -> Process:
    words = ["scale", "kubernetes", "--kubeconfig", str(kubeconfig), "--template", str(job), "--max", "5", *options]
    return Process(cluster.home, [*words, "--interval", "1", "--broker", cluster.broker.requests])


def test_from_none_to_five_agents_and_back_for_fifty_jobs(cluster: Cluster, kube: Kube, tmp_path: Path) -> None:
    scaling = scaler(cluster, kube.kubeconfig(tmp_path / "config"), template(tmp_path, agent_command(cluster)))
    scaling.line("airunner: scaling queue default")
    with running_kubelet(kube, tmp_path) as kubelet:
        assert anyio.run(run_jobs, cluster, 50) == {"COMPLETED"}
    assert scaling.stop() == 128 + 15
    names = [f"airunner-default-{number}" for number in range(5)]
    assert sorted(kubelet.ran) == kube.jobs() == names
    assert [line.split()[3] for line in scaling.lines if "started agent" in line] == names


@pytest.mark.parametrize(("at", "cut"), CUTS)
def test_a_scaler_that_is_killed_at_any_step_and_its_successor_start_no_agent_twice(
    waiting: Cluster, kube: Kube, tmp_path: Path, at: int, cut: str
) -> None:
    job = template(tmp_path, ["sleep", "60"])  # an agent that the broker does not know yet
    units = read_template(job)
    ended = kube.ask("POST", JOBS, units.manifest_of("a", "a-0"))
    complete(kube, "a-0", 0)

    async def succeed() -> None:
        access = find_access(kube.kubeconfig(tmp_path / "config"), {})
        async with (
            Client(waiting.broker.requests, home=waiting.home) as client,
            JobsApi.open(access, NAMESPACE, f"{LABEL}=a") as api,
        ):
            await Scaler(client, KubernetesJobs(api, units, "a"), Terms("a", "default", 5), print).look()

    with door_before(kube) as door:
        door.cut_at, door.cut = at, cut
        killed = scaler(waiting, kube.kubeconfig(tmp_path / "door", door.url), job, "--name", "a")
        door.pid = killed.pid
        assert killed.wait() == -9, killed.lines
        anyio.run(succeed)
        before = uids(kube)
        door.release.set()
        door.done.wait()
        assert uids(kube) == before
    assert sorted(before) == ["a-0", "a-1"]
    assert before["a-0"] != ended["metadata"]["uid"]


def test_the_deployed_example_runs_a_job(
    cluster: Cluster, kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    cluster.airunner("certs", "add", "pod", "--role", "agent", "--queue", "default")
    for name, words in (
        ("agent.keys", ["certs", "export", "pod"]),
        ("token", ["token", "--subject", "pod", "--role", "work"]),
    ):
        (keys / name).touch(0o600)  # as `defaultMode: 0600` makes them
        (keys / name).write_bytes(cluster.airunner(*words).stdout)
    text = (DEPLOYED / "agent-job.yaml").read_text()
    for old, new in (
        (" /keys/", f" {keys}/"),
        ("/home/airunner}", f"{tmp_path}/pod}}"),
        ("tcp://broker.example.org:7070", cluster.broker.requests),
        ("namespace: airunner", f"namespace: {NAMESPACE}"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "job.yaml").write_text(text)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    manifests = (DEPLOYED / "scaler.yaml").read_text().replace("namespace: airunner", f"namespace: {NAMESPACE}")
    token = kube.account_token(list(yaml.safe_load_all(manifests)))
    scaling = scaler(cluster, kube.kubeconfig(tmp_path / "config", token=token), tmp_path / "job.yaml")
    with running_kubelet(kube, tmp_path):
        scaling.line("airunner: scaling queue default")
        assert anyio.run(run_jobs, cluster, 1) == {"COMPLETED"}
    scaling.stop()
    assert [line for line in scaling.lines if "started" in line] == [
        "airunner: started agent airunner-default-0 (1 of 5); waiting jobs: 1"
    ]


def test_the_deployed_commands_exist_and_leave_time_for_the_delivery() -> None:
    documents = list(yaml.safe_load_all((DEPLOYED / "scaler.yaml").read_text()))
    (pod,) = [each["spec"]["template"]["spec"] for each in documents if each["kind"] == "Deployment"]
    agent = read_template(DEPLOYED / "agent-job.yaml").manifest["spec"]["template"]["spec"]
    batch = (DEPLOYED.parent / "slurm" / "agent.sh").read_text()
    subprocess.run(["sh", "-n", DEPLOYED.parent / "slurm" / "agent.sh"], check=True)
    scripts = [pod["containers"][0]["args"][0], agent["containers"][0]["args"][0], batch]
    for script in scripts:
        (words,) = re.findall(r"exec (airunner .+)", script.replace("\\\n", " "))
        command = re.findall(r"^airunner((?: [a-z]+)+)", words)[0].split()
        known = run(environment(Path("none")), *command, "--help").stdout.decode()
        assert set(re.findall(r" (--[a-z-]+)", words)) - set(re.findall(r" (--[a-z-]+)", known)) == set()
    drain = [int(found) for found in re.findall(r"--drain-timeout (\d+)", "".join(scripts))]
    assert drain == [agent["terminationGracePeriodSeconds"] - 15, int(re.search(r"TERM@(\d+)", batch)[1]) - 15]


def uids(kube: Kube) -> dict[str, Any]:
    return {job["metadata"]["name"]: job["metadata"]["uid"] for job in kube.ask("GET", JOBS)["items"]}


def test_what_cannot_be_started_is_one_line(waiting: Cluster, kube: Kube, tmp_path: Path) -> None:
    def refused(kubeconfig: Path, **spec: object) -> str:
        scaling = scaler(waiting, kubeconfig, template(tmp_path, ["true", "--disconnect-after-job"], **spec))
        assert scaling.wait() == 64
        (line,) = scaling.lines
        return line

    good = kube.kubeconfig(tmp_path / "config")
    assert "restartPolicy" in refused(good, restartPolicy=None)
    assert "does not answer" in refused(kube.kubeconfig(tmp_path / "away", "http://127.0.0.1:1"))
    stranger = tmp_path / "stranger"
    stranger.write_text(good.read_text().replace("a-token-of", "no-token-of"))
    assert "refuses POST" in refused(stranger)
    assert kube.jobs() == []
