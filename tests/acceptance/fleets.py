"""Brokers of one fleet as real processes, on a PostgreSQL server of their own, with an agent that knows them all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.running import Process, RunningBroker, airunner, environment, make_home, run
from tests.postgresql.serving import Server, require, serving

VERSION = 15


class RunningFleet:
    """Brokers that share a server and a key pair, each in a home of its own; agents and clients name all of them."""

    def __init__(self, root: Path, server: Server, brokers: int, *options: str) -> None:
        self.server = server
        self.home = root / "0"
        self.agents: list[Process] = []
        make_home(self.home)
        airunner(self.home, "certs", "add", "fleet", "--role", "broker")
        for number in range(1, brokers):
            shutil.copytree(self.home, root / str(number))
        url = server.url(server.database(), tcp=True)
        self.brokers = [RunningBroker(root / str(number), url, *options) for number in range(brokers)]

    @property
    def endpoints(self) -> list[str]:
        return [broker.requests for broker in self.brokers]

    def environ(self, *brokers: RunningBroker) -> dict[str, str]:
        """Of clients of these brokers; none: of all."""
        endpoints = [broker.requests for broker in brokers] or self.endpoints
        return environment(self.home, {"AIRUNNER_BROKER": ",".join(endpoints)})

    def agent(self, *brokers: RunningBroker, spawn: int = 1, more: Mapping[str, str] | None = None) -> Process:
        """Start an agent of these brokers, and return when it is ready."""
        endpoints = [broker.requests for broker in brokers] or self.endpoints
        named = [word for endpoint in endpoints for word in ("--broker", endpoint)]
        agent = Process(self.home, ["agent", *named, "--spawn", str(spawn), "--allow-local"], more)
        self.agents.append(agent)
        agent.line("airunner agent ready")
        return agent

    def submit(self, script: str, *brokers: RunningBroker) -> str:
        """Submit a shell script that nobody monitors; return its job's id."""
        done = run(self.environ(*brokers), "submit", "--no-monitor", "--", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def log(self, job_id: str, *brokers: RunningBroker) -> list[dict[str, Any]]:
        """The whole log of a job, once it has ended."""
        done = run(self.environ(*brokers), "monitor", "--json", job_id, timeout_s=60)
        assert done.stdout, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def listed(self, broker: RunningBroker) -> dict[str, dict[str, Any]]:
        """What a broker lists, by the endpoint of each."""
        done = run(self.environ(broker), "brokers", "--json")
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return {row["endpoint"]: row for row in rows}

    def close(self) -> None:
        for process in (*self.agents, *self.brokers):
            process.stop()


@contextmanager
def running_fleet(root: Path, brokers: int = 2, *options: str) -> Iterator[RunningFleet]:
    """A fleet that is there while the block runs; the test is skipped where there is no PostgreSQL."""
    require(VERSION)
    with ExitStack() as ends:
        server = ends.enter_context(serving(VERSION, root / "postgresql.log"))
        fleet = RunningFleet(root, server, brokers, *options)
        ends.callback(fleet.close)
        yield fleet
