"""Costs of a scripted job in counts, which are the same on every machine: system calls, messages and commits."""

from __future__ import annotations

import math
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio

from airunner import Client
from tests.acceptance.running import Cluster, metrics
from tests.counting import needs_strace

JOBS = 16  # one after the other, so that no two share a batch, and each costs what a lone job costs
ROUNDS = 3  # of so many jobs, of which the least counts: where jobs are slow, heartbeats fall into a round, too
# The bounds are a tenth above what was counted: some calls depend on what arrives first. A broker reads its allow-list
# at each request until the file has been the same for 3 s, so the calls that read files are not counted there.
CALLS: Mapping[str, Mapping[str, float]] = {
    "broker": {"epoll_wait": 41, "sendto": 11.5, "recvfrom": 14, "pwrite64": 54, "fdatasync": 4},
    "agent": {"total": 344, "epoll_wait": 34, "sendto": 4.4},
    "keepers": {"total": 160, "sendmsg": 2.2, "clone3": 1.1},
}
COUNTED = {"airunner_requests_total": 6.6, "airunner_commits_total": 4.4, "airunner_announced_total": 3.2}


def children(pid: int) -> list[int]:
    """Every process below this one, nearest first."""
    found = [pid]
    for parent in found:
        for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, tasks.read_text().split())
    return found[1:]


async def run_jobs(cluster: Cluster, jobs: int) -> None:
    async with Client(cluster.broker.requests, home=cluster.home) as client:
        for _ in range(jobs):
            job = await client.submit(command="true")
            assert [event.kind async for event in client.follow(job.id)][-1] == "JOB_FINISHED"


@contextmanager
def traced(folder: Path, roles: Mapping[str, list[int]]) -> Iterator[Callable[[], dict[str, Counter[str]]]]:
    """Count the system calls of processes, by role and name, until the function that this yields is called."""
    tracers = {}
    for role, pids in roles.items():
        command = ["strace", "-f", "-qq", "-c", "-S", "calls", "-o", str(folder / role)]
        tracer = subprocess.Popen([*command, *(word for pid in pids for word in ("-p", str(pid)))])
        tracers[role] = tracer
        for pid in pids:
            while not re.search(r"TracerPid:\s*[1-9]", Path(f"/proc/{pid}/status").read_text()):
                assert tracer.poll() is None, f"strace cannot follow {role}"

    def counted() -> dict[str, Counter[str]]:
        for tracer in tracers.values():
            tracer.send_signal(signal.SIGINT)
            tracer.wait()
        counts: dict[str, Counter[str]] = {}
        for role in roles:
            rows = [line.split() for line in (folder / role).read_text().splitlines()]
            counts[role] = Counter({row[-1]: int(row[3]) for row in rows if len(row) > 4 and row[3].isdigit()})
        return counts

    try:
        yield counted
    finally:
        for tracer in tracers.values():
            tracer.kill()
            tracer.wait()


@needs_strace
def test_a_lone_job_takes_no_more_system_calls_than_it_did(cluster: Cluster, tmp_path: Path) -> None:
    agent = cluster.agent()
    anyio.run(run_jobs, cluster, 4)  # not counted: keepers are forked, modules imported, and a connection is made
    roles = {"broker": [cluster.broker.process.pid], "agent": [agent.pid], "keepers": children(agent.pid)}
    found = {(role, name): math.inf for role, bounds in CALLS.items() for name in bounds}
    over: dict[tuple[str, str], float] = found
    for _ in range(ROUNDS):
        with traced(tmp_path, roles) as counted:
            anyio.run(run_jobs, cluster, JOBS)
            counts = counted()
        found = {(role, name): min(calls, counts[role][name] / JOBS) for (role, name), calls in found.items()}
        over = {(role, name): calls for (role, name), calls in found.items() if calls > CALLS[role][name]}
        if not over:
            break
    assert not over, found


def test_a_lone_job_takes_no_more_messages_and_commits_than_it_did(cluster: Cluster) -> None:
    cluster.agent()
    anyio.run(run_jobs, cluster, 4)
    before = metrics(cluster.broker.http)
    anyio.run(run_jobs, cluster, JOBS)
    after = metrics(cluster.broker.http)
    found = {name: (after[name] - before[name]) / JOBS for name in COUNTED}
    assert not {name: bound for name, bound in COUNTED.items() if found[name] > bound}, found
