"""A log is proven by its agent's signature, through kills of the broker and of the agent; its changes are named."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.running import Cluster, Gate, start, submitted
from tests.acceptance.test_much_output import WRITE

MEGABYTES = 50


def test_a_log_is_true_until_it_is_changed(cluster: Cluster, tmp_path: Path) -> None:
    cluster.agent()
    head, other, nobody = (tmp_path / name for name in ("head", "other", "nobody"))
    job, second = submitted(cluster, "--", "sh", "-c", "echo one; exit 3"), submitted(cluster, "--", "true")
    assert cluster.airunner("wait", job, second).returncode == 3
    verified = cluster.airunner("verify", job, "--save-head", str(head))
    assert (verified.returncode, verified.stdout.count(b"the log is true")) == (0, 1)
    assert cluster.airunner("verify", second, "--save-head", str(other)).returncode == 0
    assert cluster.airunner("verify", job, "--head", str(other)).returncode == 64
    nobody.write_text("")
    unknown = cluster.airunner("verify", job, "--signers", str(nobody))
    assert (unknown.returncode, b"a key that is not in certs/signers" in unknown.stdout) == (78, True)
    assert cluster.airunner("verify", job, "--signers", str(nobody), "--head", str(head)).returncode == 0
    os.mkfifo(tmp_path / "fifo")
    secret = cluster.home / "certs" / "client.secret"
    refused = [("--head", tmp_path / "fifo"), ("--signers", Path("/dev/zero")), ("--signers", secret)]
    assert [cluster.airunner("verify", job, option, str(path)).returncode for option, path in refused] == [64, 64, 64]
    nobody.write_bytes(codecs.BOM_UTF8 + cluster.airunner("certs", "signers").stdout)
    assert cluster.airunner("verify", job, "--signers", str(nobody)).returncode == 0
    events = map(json.loads, cluster.airunner("monitor", job, "--json").stdout.splitlines())
    (output,) = [event["sequence"] for event in events if event["kind"] == "OUTPUT"]
    cluster.broker.stop()
    with closing(sqlite3.connect(cluster.home / "broker" / "airunner.db")) as store, store:
        ((row, events),) = [row for row in store.execute("SELECT rowid, events FROM segment") if b"one\n" in row[1]]
        store.execute("UPDATE segment SET events = ? WHERE rowid = ?", (events.replace(b"one\n", b"two\n"), row))
    cluster.broker.start()
    for options in ((), ("--head", str(head))):
        changed = cluster.airunner("verify", job, "--json", *options)
        found = json.loads(changed.stdout)
        assert (changed.returncode, found["verified"]) == (65, False)
        assert [fault["text"] for fault in found["faults"]] == [f"event {output} of attempt 1 is changed"]


def test_an_agent_that_was_killed_leaves_its_attempt_unsigned(cluster: Cluster, gate: Gate) -> None:
    agent = cluster.agent()
    job = submitted(cluster, "--", "sh", "-c", gate.script)
    gate.wait()
    agent.kill()
    cluster.agent()
    gate.wait()
    gate.open(2)
    assert cluster.airunner("wait", job).returncode == 0
    verified = cluster.airunner("verify", job)
    assert verified.returncode == 0, verified.stdout
    first, second, result = verified.stdout.decode().splitlines()
    assert (first[:13], first[-24:]) == ("attempt 1 on ", "was released: not signed")
    assert (second[:13], second[-28:]) == ("attempt 2 on ", "signed with the key of local")
    assert result.startswith("the log is true (")


@pytest.mark.timeout(240)
def test_a_log_is_whole_and_true_though_its_broker_is_killed_three_times(cluster: Cluster, tmp_path: Path) -> None:
    cluster.agent()
    written = tmp_path / "written"
    job = submitted(cluster, "--", "python3", "-c", WRITE, str(MEGABYTES), str(written))
    hashed, size, kills = hashlib.sha256(), 0, 0
    with start(cluster.environ, "monitor", "--quiet", job, stdout=subprocess.PIPE) as monitor:
        assert monitor.stdout is not None
        while block := monitor.stdout.read(1 << 20):
            hashed.update(block)
            size += len(block)
            if kills < 3 and size >= (kills + 1) * 12_000_000:
                kills += 1
                cluster.broker.kill()
                cluster.broker.start()
    assert (monitor.returncode, kills, size) == (0, 3, MEGABYTES * 1_000_000)
    assert hashed.hexdigest() == written.read_text()
    verified = cluster.airunner("verify", job)
    assert verified.returncode == 0, verified.stdout
