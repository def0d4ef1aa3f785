"""Backups: of a broker that works on meanwhile, verified, restored, and served again."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import anyio

from airunner.broker.control import BACKUP, short_path
from airunner.client.client import Client
from airunner.protocol.fields import JobSpec
from tests.acceptance.running import Cluster, airunner, events, running_broker, stored, submit, submitted


def wait_later(cluster: Cluster, jobs: int) -> list[str]:
    """Jobs that the broker has acknowledged, and no agent runs."""

    async def run() -> list[str]:
        async with Client(cluster.broker.requests, home=cluster.home) as client:
            return [job.id for job in await client.submit_many([JobSpec(command="true", queue="later")] * jobs)]

    return anyio.run(run)


def test_a_broker_is_backed_up_while_it_works_and_the_restored_one_serves_all_of_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.agent()
    ended = submitted(cluster, "--", "seq", "20000")
    whole = list(events(cluster, ended))
    waiting = wait_later(cluster, 20)
    running = submit(cluster, "while :; do seq 100; done")
    stored(cluster, running, "OUTPUT")
    copy = tmp_path / "copy.db"
    report = json.loads(airunner(cluster.home, "backup", str(copy), "--json"))
    assert (report["jobs"], report["faults"]) == (22, [])
    assert copy.stat().st_mode & 0o777 == 0o600
    cluster.airunner("cancel", running)
    assert list(events(cluster, running))[-1]["kind"] == "JOB_FINISHED"

    elsewhere = f"sqlite:///{tmp_path}/elsewhere/store.db"
    airunner(cluster.home, "store", "restore", str(copy), "--store", elsewhere)
    with running_broker(cluster.home, elsewhere) as broker:
        restored = Cluster(broker)
        assert list(events(restored, ended)) == whole
        listed = map(json.loads, restored.airunner("list", "--json", "--limit", "30").stdout.splitlines())
        states = {job["id"]: job["state"] for job in listed}
        assert states == {ended: "COMPLETED", running: "RUNNING", **dict.fromkeys(waiting, "SCHEDULED")}
        stored(restored, running, "OUTPUT")


def test_what_would_lose_something_is_refused_in_one_line(cluster: Cluster, tmp_path: Path) -> None:
    wait_later(cluster, 1)
    copy = tmp_path / "copy.db"
    airunner(cluster.home, "backup", str(copy))
    assert b"with --force" in cluster.airunner("backup", str(copy)).stderr
    assert b"--force replaces it" in cluster.airunner("store", "restore", str(copy)).stderr
    forced = cluster.airunner("store", "restore", str(copy), "--force")
    assert (forced.returncode, b"stop it first" in forced.stderr) == (69, True)
    (tmp_path / "damaged.db").write_bytes(copy.read_bytes()[:8_192])
    damaged = cluster.airunner("store", "restore", str(tmp_path / "damaged.db"), "--force")
    assert (damaged.returncode, b"is not restored" in damaged.stderr) == (74, True)
    store = cluster.home / "broker" / "airunner.db"
    (tmp_path / "link.db").symlink_to(store)
    (tmp_path / "hard.db").hardlink_to(store)
    for itself in (store, tmp_path / "link.db", tmp_path / "hard.db"):
        refused = cluster.airunner("backup", str(itself), "--force")
        assert (refused.returncode, b"the store itself" in refused.stderr) == (64, True), itself
        assert itself.samefile(store), "nothing was replaced"
    (tmp_path / "link.db").unlink()
    (tmp_path / "hard.db").unlink()
    nowhere = cluster.airunner("backup", str(tmp_path / "missing" / "copy.db"))
    assert (nowhere.returncode, b"No such file" in nowhere.stderr) == (64, True)
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
    before = wait_later(cluster, 1)
    copy = tmp_path / "copy.db"
    airunner(cluster.home, "backup", str(copy))
    wait_later(cluster, 30)
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
    wait_later(cluster, 1)
    store = cluster.home / "broker" / "airunner.db"
    with short_path(store) as path, (tmp_path / "first").open("w+b") as first:
        with socket.socket(socket.AF_UNIX) as leaving:
            leaving.connect(path)
            leaving.send(b"something else")
            assert b"accepts only `backup`" in leaving.recv(4_096)
        with socket.socket(socket.AF_UNIX) as leaving:
            leaving.connect(path)
            socket.send_fds(leaving, [BACKUP], [first.fileno()])
    airunner(cluster.home, "backup", str(tmp_path / "second"))
    assert store.with_name("airunner.db-control").stat().st_mode & 0o777 == 0o600
