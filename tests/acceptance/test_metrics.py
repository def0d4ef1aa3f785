"""Every metric moves as it should while jobs run, and the dashboard, KEDA and Prometheus find what they ask for."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from airunner.__main__ import run
from airunner.agent import metrics as agent_metrics
from airunner.broker import metrics as broker_metrics
from airunner.transport.metric import Metric, MetricKind
from tests.acceptance.running import Cluster, Gate, make_home, running_cluster, submit, submitted

ROOT: Final = Path(__file__).parents[2]
MONITORING: Final = ROOT / "deploy" / "monitoring"
PROMTOOL: Final = shutil.which("promtool")
PROCESS: Final = {"cpu_seconds_total", "max_fds", "open_fds", "resident_memory_bytes", "start_time_seconds"}
PROCESS_ALL: Final = {f"process_{name}" for name in {*PROCESS, "virtual_memory_bytes"}}
SCRAPED: Final = {"instance", "job"}  # labels that Prometheus adds to what it scrapes
Sample = tuple[str, frozenset[tuple[str, str]]]

needs_prometheus = pytest.mark.skipif(
    PROMTOOL is None and "CI" not in os.environ,
    reason="prometheus and promtool are not installed: install Debian's prometheus",
)


def text(address: str, accept: str = "text/plain") -> str:
    with urlopen(Request(f"http://{address}/metrics", headers={"Accept": accept}), timeout=10) as page:
        return page.read().decode()


class Scrape:
    """One look at /metrics."""

    def __init__(self, page: str) -> None:
        self.samples: dict[Sample, float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples with these labels."""
        wanted = labels.items()
        return sum(value for (found, having), value in self.samples.items() if found == name and wanted <= having)

    @property
    def labels(self) -> dict[str, set[str]]:
        """The labels of each name."""
        found: dict[str, set[str]] = {}
        for name, having in self.samples:
            found.setdefault(name, set()).update(label for label, _ in having)
        return found


class Watched:
    """A cluster with an agent that has pages, at which a test looks until they show what it waits for."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.broker = cluster.broker.http
        agent = cluster.agent("--http", "127.0.0.1:0", "--tag", "gpu=a100", spawn=2)
        (ready,) = [line for line in agent.lines if line.startswith("airunner agent ready")]
        self.agent = ready.rpartition(" http ")[2]

    def until(self, address: str, shows: Callable[[Scrape], bool]) -> Scrape:
        """Look again and again, until the test's timeout."""
        while not shows(scrape := Scrape(text(address))):
            pass
        return scrape


@pytest.fixture(name="watched", scope="module")
def watched_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A broker and an agent that have run a job."""
    home = tmp_path_factory.mktemp("watched") / "home"
    make_home(home)
    with running_cluster(home) as cluster:
        watched = Watched(cluster)
        assert cluster.airunner("submit", "--", "true").returncode == 0
        yield watched


@pytest.fixture(scope="module")
def pages(watched: Watched) -> tuple[str, str]:
    return text(watched.broker), text(watched.agent)


def test_each_metric_moves_as_jobs_wait_run_and_end(cluster: Cluster, gate: Gate) -> None:
    submitted(cluster, "--queue", "gpu", "--require", "gpu=b200", "--", "true")
    submitted(cluster, "--queue", "gpu", "--not-before", "2100-01-01T00:00:00Z", "--", "true")
    submitted(cluster, "--queue", "held", "--", "true")
    assert cluster.airunner("pause", "held").returncode == 0
    watched = Watched(cluster)
    before = watched.until(watched.broker, lambda page: page("airunner_agents", state="idle") == 1)
    jobs = {state: before("airunner_queue_jobs", state=state) for state in ("ready", "paused", "delayed", "running")}
    assert jobs == {"ready": 1, "paused": 1, "delayed": 1, "running": 0}
    assert before("airunner_queue_ready_jobs", tenant="default", queue="gpu", needs="gpu=b200") == 1
    assert before("airunner_queue_ready_jobs") == 1
    assert before("airunner_queue_oldest_seconds", queue="gpu") > 0
    assert before("airunner_agents_slots") == 2

    running = submit(cluster, gate.script)
    gate.wait()
    busy = watched.until(watched.broker, lambda page: page("airunner_agents", state="busy") == 1)
    assert busy("airunner_queue_jobs", queue="default", state="running") == 1
    assert busy("airunner_start_latency_seconds_count") == before("airunner_start_latency_seconds_count") + 1
    assert busy("airunner_start_latency_seconds_sum") == 0, "it is leased in the transaction that submits it"
    assert Scrape(text(watched.agent))("airunner_agent_slots", state="busy") == 1
    assert Scrape(text(watched.agent))("airunner_agent_leases") == 1

    gate.open(1)
    cluster.airunner("monitor", running)
    cluster.airunner("submit", "--", "sh", "-c", "head -c 300000 /dev/urandom; false")
    after = watched.until(watched.broker, lambda page: page("airunner_job_duration_seconds_count") == 2)
    for state in ("completed", "failed"):
        assert after("airunner_job_duration_seconds_count", state=state) == 1
        assert after("airunner_job_duration_seconds_sum", state=state) > 0
    assert after("airunner_commit_seconds_count") == after("airunner_commits_total") > before("airunner_commits_total")
    assert after("airunner_commit_seconds_sum") > before("airunner_commit_seconds_sum")
    assert after("airunner_store_bytes") > before("airunner_store_bytes") > 0
    assert after("airunner_events_total") > busy("airunner_events_total")
    assert cluster.airunner("resume", "held").returncode == 0
    cluster.agent("--queue", "held")
    waited = watched.until(watched.broker, lambda page: page("airunner_start_latency_seconds_count") == 3)
    assert waited("airunner_start_latency_seconds_sum") > 0
    ended = watched.until(watched.agent, lambda page: page("airunner_agent_attempts_total") == 2)
    assert ended("airunner_agent_attempts_total", outcome="failed") == 1
    assert ended("airunner_agent_prepare_seconds_count") == 2
    assert ended("airunner_agent_slots", state="idle") == 2
    assert ended("airunner_agent_connections_total") == 1
    assert ended("airunner_agent_free_bytes") > 0
    assert (ended("airunner_spool_bytes"), ended("airunner_spool_max_bytes")) == (0, 10 << 30)


def test_an_agent_without_a_broker_says_so_and_keeps_the_output(cluster: Cluster, gate: Gate) -> None:
    watched = Watched(cluster)
    with urlopen(f"http://{watched.agent}/health", timeout=10) as page:
        assert page.read() == b"ok\n"
    submit(cluster, f"{gate.script}; seq 10000")
    gate.wait()
    cluster.broker.kill()
    gate.open(1)
    spooled = watched.until(
        watched.agent,
        lambda page: page("airunner_spool_bytes") > 0 and page("airunner_agent_broker_silent") > 0,
    )
    assert spooled("airunner_agent_leases") == 1
    with urlopen(Request(f"http://{watched.agent}/health", headers={"Accept": "application/json"}), timeout=10) as page:
        assert json.load(page) == {"status": "degraded", "conditions": {"broker": "no broker answers"}}
    cluster.broker.start()
    watched.until(
        watched.agent,
        lambda page: page("airunner_spool_bytes") == 0 and page("airunner_agent_broker_silent") == 0,
    )


def names_of(metrics: tuple[Metric, ...]) -> set[str]:
    suffixes = {MetricKind.HISTOGRAM: ("_bucket", "_count", "_sum")}
    return {metric.shown_name + suffix for metric in metrics for suffix in suffixes.get(metric.kind, ("",))}


def test_all_metrics_of_the_tables_are_scraped_and_no_other(pages: tuple[str, str]) -> None:
    for page, metrics in zip(pages, (broker_metrics.METRICS, agent_metrics.METRICS), strict=True):
        assert set(Scrape(page).labels) == names_of(metrics) | PROCESS_ALL


@needs_prometheus
def test_promtool_finds_no_fault_with_the_pages(pages: tuple[str, str]) -> None:
    assert PROMTOOL is not None, "continuous integration installs it"
    for page in pages:
        checked = subprocess.run([PROMTOOL, "check", "metrics"], input=page.encode(), capture_output=True, check=False)
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def queries() -> list[str]:
    panels = json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]
    keda = yaml.safe_load((MONITORING / "keda.yaml").read_text())["spec"]["triggers"][0]["metadata"]["query"]
    dashboard = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    assert len(dashboard) > 20
    return [*dashboard, keda]


def test_each_query_asks_for_metrics_and_labels_that_are_scraped(pages: tuple[str, str]) -> None:
    labels = {**Scrape(pages[0]).labels, **Scrape(pages[1]).labels}
    for query in queries():
        asked = re.findall(r"\b((?:airunner|process)_\w+)(?:\{([^}]*)\})?", query)
        assert asked, query
        having = SCRAPED.union(*(labels[name] for name, _ in asked))
        matched = {word for _, matchers in asked for word in re.findall(r"(\w+)[=!~]+\"", matchers)}
        grouped = {word for group in re.findall(r"(?:by|on) \(([^)]*)\)", query) for word in group.split(", ")}
        assert matched | grouped <= having, query


def configuration(watched: Watched) -> str:
    """The example's, for these processes, and quicker."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    addresses = {"airunner-broker": watched.broker, "airunner-agent": watched.agent}
    for job in config["scrape_configs"]:
        job |= {"scrape_interval": "1s", "static_configs": [{"targets": [addresses[job["job_name"]]]}]}
    return json.dumps(config)


@needs_prometheus
def test_prometheus_scrapes_both_and_answers_each_query(watched: Watched, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = "{}:{}".format(*free.getsockname())
    (tmp_path / "prometheus.yml").write_text(configuration(watched))
    options = {"config.file": tmp_path / "prometheus.yml", "storage.tsdb.path": tmp_path / "tsdb"}
    options |= {"web.listen-address": address, "log.level": "error"}
    left = [query.replace("$queue", ".*").replace("$__rate_interval", "10s") for query in queries()]
    with subprocess.Popen(["prometheus", *(f"--{name}={value}" for name, value in options.items())]) as prometheus:
        try:
            while left:  # until two scrapes have shown what each asks for
                asked = f"http://{address}/api/v1/query?{urlencode({'query': left[-1]})}"
                with suppress(OSError), urlopen(asked, timeout=10) as page:
                    if json.load(page)["data"]["result"]:
                        left.pop()
                assert prometheus.poll() is None, "prometheus has ended"
        finally:
            prometheus.terminate()


def test_openmetrics_is_served_to_who_prefers_it(pages: tuple[str, str], watched: Watched) -> None:
    assert "# EOF" not in pages[0]
    assert text(watched.broker, "application/openmetrics-text;version=1.0.0").endswith("# EOF\n")


def test_the_agent_that_keda_starts_has_options_that_exist(capfd: pytest.CaptureFixture[str]) -> None:
    job = yaml.safe_load((MONITORING / "keda.yaml").read_text())["spec"]["jobTargetRef"]
    (script,) = job["template"]["spec"]["containers"][0]["args"]
    assert run(["agent", "--help"]) == 0
    shown = capfd.readouterr().out
    options = [word for word in shlex.split(script) if word.startswith("--")]
    assert options
    assert all(option in shown for option in options)
