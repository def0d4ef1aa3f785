"""Backups: of a broker that works on meanwhile, verified, restored, and served again."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import anyio

from airunner.broker.control import BACKUP, short_path
from airunner.client.client import Client
from airunner.protocol.events import Event
from tests.acceptance.running import Cluster, RunningBroker, airunner, running_broker


def submitted(broker: RunningBroker, jobs: int) -> list[str]:
    """Jobs that the broker has acknowledged."""

    async def run() -> list[str]:
        async with Client(broker.requests, home=broker.home) as client:
            return [(await client.submit(command="true", queue="later")).id for _ in range(jobs)]

    return anyio.run(run)


def logs(broker: RunningBroker, job_ids: list[str], kinds: int | None = None) -> list[list[Event]]:
    """The events of each, the first `kinds` of those that have not ended."""

    async def run() -> list[list[Event]]:
        async with Client(broker.requests, home=broker.home) as client:
            found: list[list[Event]] = []
            for job_id in job_ids:
                events: list[Event] = []
                async with client.follow(job_id) as following:
                    async for event in following:
                        events.append(event)
                        if len(events) == kinds:
                            break
                found.append(events)
            return found

    return anyio.run(run)


def test_a_broker_is_backed_up_while_it_works_and_the_restored_one_serves_all_of_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.agent()
    ended = cluster.airunner("submit", "--no-monitor", "--", "seq", "20000").stdout.decode().split()
    whole = logs(cluster.broker, ended)
    waiting = submitted(cluster.broker, 20)
    running = cluster.airunner("submit", "--no-monitor", "--", "sh", "-c", "while :; do seq 100; done").stdout.decode()
    logs(cluster.broker, [running.strip()], kinds=5)  # until it writes
    copy = tmp_path / "copy.db"
    report = json.loads(airunner(cluster.home, "backup", str(copy), "--json"))
    assert (report["jobs"], report["faults"]) == (22, [])
    assert copy.stat().st_mode & 0o777 == 0o600
    cluster.airunner("cancel", running.strip())
    assert logs(cluster.broker, [running.strip()])[0][-1].kind == "JOB_FINISHED"

    elsewhere = tmp_path / "elsewhere" / "store.db"
    airunner(cluster.home, "store", "restore", str(copy), "--store", f"sqlite:///{elsewhere}")
    with running_broker(cluster.home, f"sqlite:///{elsewhere}") as restored:
        assert logs(restored, ended) == whole
        assert [one[0].kind for one in logs(restored, waiting, kinds=1)] == ["JOB_SCHEDULED"] * len(waiting)
        assert len(logs(restored, [running.strip()], kinds=5)[0]) == 5


def test_what_would_lose_something_is_refused_in_one_line(cluster: Cluster, tmp_path: Path) -> None:
    submitted(cluster.broker, 1)
    copy = tmp_path / "copy.db"
    airunner(cluster.home, "backup", str(copy))
    assert b"give --force" in cluster.airunner("backup", str(copy)).stderr
    assert b"--force replaces it" in cluster.airunner("store", "restore", str(copy)).stderr
    forced = cluster.airunner("store", "restore", str(copy), "--force")
    assert (forced.returncode, b"stop it first" in forced.stderr) == (69, True)
    (tmp_path / "damaged.db").write_bytes(copy.read_bytes()[:8_192])
    damaged = cluster.airunner("store", "restore", str(tmp_path / "damaged.db"), "--force")
    assert (damaged.returncode, b"is not restored" in damaged.stderr) == (1, True)
    store = cluster.home / "broker" / "airunner.db"
    (tmp_path / "link.db").symlink_to(store)
    (tmp_path / "hard.db").hardlink_to(store)
    for itself in (store, tmp_path / "link.db", tmp_path / "hard.db"):
        refused = cluster.airunner("backup", str(itself), "--force")
        assert (refused.returncode, b"the store itself" in refused.stderr) == (2, True), itself
        assert itself.samefile(store), "nothing was replaced"
    (tmp_path / "link.db").unlink()
    (tmp_path / "hard.db").unlink()
    nowhere = cluster.airunner("backup", str(tmp_path / "missing" / "copy.db"))
    assert (nowhere.returncode, b"No such file" in nowhere.stderr) == (2, True)
    assert sorted(path.name for path in tmp_path.glob("*.db*")) == ["copy.db", "damaged.db"]

    cluster.broker.stop()
    airunner(cluster.home, "store", "restore", str(copy), "--force")
    airunner(cluster.home, "store", "check")
    airunner(cluster.home, "store", "check", "--store", f"sqlite:///{store}.before-restore")
    airunner(cluster.home, "backup", str(tmp_path / "stopped.db"))  # of a stopped broker too


def test_a_restore_takes_no_other_journal_for_its_own_and_no_running_brokers_place(
    cluster: Cluster, tmp_path: Path
) -> None:
    store = cluster.home / "broker" / "airunner.db"
    before = submitted(cluster.broker, 1)
    copy = tmp_path / "copy.db"
    airunner(cluster.home, "backup", str(copy))
    submitted(cluster.broker, 30)
    store.unlink()
    running = cluster.airunner("store", "restore", str(copy))
    assert (running.returncode, b"stop it first" in running.stderr) == (69, True)
    cluster.broker.kill()  # its journal stays, with jobs that the backup does not have
    assert store.with_name("airunner.db-wal").exists()
    airunner(cluster.home, "store", "restore", str(copy))
    assert json.loads(airunner(cluster.home, "store", "check", "--json"))["jobs"] == len(before)
    store.write_bytes(b"no database" * 1_000)
    airunner(cluster.home, "store", "restore", str(copy), "--force")
    assert json.loads(airunner(cluster.home, "store", "check", "--json"))["jobs"] == len(before)
    assert store.with_name("airunner.db.before-restore").read_bytes().startswith(b"no database")


def test_one_backup_at_a_time_and_who_leaves_one_ends_it(cluster: Cluster, tmp_path: Path) -> None:
    submitted(cluster.broker, 1)
    store = cluster.home / "broker" / "airunner.db"
    with short_path(store) as path, (tmp_path / "first").open("w+b") as first:
        with socket.socket(socket.AF_UNIX) as leaving:
            leaving.connect(path)
            leaving.send(b"something else")
            assert b"only answers `backup`" in leaving.recv(4_096)
        with socket.socket(socket.AF_UNIX) as leaving:
            leaving.connect(path)
            socket.send_fds(leaving, [BACKUP], [first.fileno()])
    airunner(cluster.home, "backup", str(tmp_path / "second"))
    assert store.with_name("airunner.db-control").stat().st_mode & 0o777 == 0o600
