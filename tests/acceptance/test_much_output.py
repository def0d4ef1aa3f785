"""Much output: whole, to the byte, and at no price in memory, whoever is away meanwhile.

`AIRUNNER_TEST_MB` says how much; the promise is made for 300.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import pytest
import zmq

from tests.acceptance.running import Cluster, Gate, airunner, start, submitted
from tests.acceptance.test_plain_msgpack import LIVE_TOPIC_PERSON, Plain

pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("unforked")]

MEGABYTES = int(os.environ.get("AIRUNNER_TEST_MB", "100"))
AGENT_BYTES_MAX = 100_000_000  # what is promised
BROKER_BYTES_MAX = 100_000_000  # an idle one takes 63
CLIENT_BYTES_MAX = 100_000_000
WRITE = """
import hashlib, os, sys
hashed = hashlib.sha256()
for _ in range(int(sys.argv[1])):
    block = os.urandom(1_000_000)
    hashed.update(block)
    at = 0
    while at < len(block):
        at += os.write(1, block[at:])
open(sys.argv[2], "w").write(hashed.hexdigest())
"""


def most_memory(pid: int) -> int:
    """Of this process alone, in bytes, since it began."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1_024


def monitored(cluster: Cluster, job_id: str) -> tuple[int, str]:
    """The exit code of a monitor, and the hash of all that it writes to stdout."""
    hashed = hashlib.sha256()
    with start(cluster.environ, "monitor", "--quiet", job_id, stdout=subprocess.PIPE) as monitor:
        assert monitor.stdout is not None
        while block := monitor.stdout.read(1 << 20):
            hashed.update(block)
    return monitor.returncode, hashed.hexdigest()


@contextmanager
def unread_monitor(cluster: Cluster, job_id: str) -> Iterator[int]:
    """The process of a monitor whose pipe nobody reads."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with start(cluster.environ, "monitor", job_id, **pipes) as monitor:
        yield monitor.pid
        monitor.kill()


@contextmanager
def stopped_listener(cluster: Cluster, job_id: str) -> Iterator[None]:
    """A subscriber that never reads what it is sent."""
    with Plain(cluster.broker, airunner(cluster.home, "token", "--subject", "stopped").strip()) as plain:
        watched = plain.ask({"type": "WatchJob", "job_id": job_id})
        listener = plain.socket(zmq.SUB, "")
        listener.rcvhwm = 1
        listener.subscribe(blake2b(key=watched["watch_key"], digest_size=16, person=LIVE_TOPIC_PERSON).digest())
        listener.connect(f"tcp://127.0.0.1:{watched['events_port']}")
        assert len(listener.recv_multipart()) == 2, "it is subscribed"
        yield


def test_random_bytes_are_stored_as_they_were_written(cluster: Cluster, tmp_path: Path) -> None:
    agent = cluster.agent()
    told = tmp_path / "hash"
    job_id = submitted(cluster, "--", sys.executable, "-c", WRITE, str(MEGABYTES), str(told))
    with unread_monitor(cluster, job_id) as unread, stopped_listener(cluster, job_id):
        assert monitored(cluster, job_id) == (0, told.read_text())
        assert most_memory(agent.pid) < AGENT_BYTES_MAX
        assert most_memory(unread) < CLIENT_BYTES_MAX
        assert most_memory(cluster.broker.process.pid) < BROKER_BYTES_MAX


def test_a_broker_that_goes_away_in_the_middle_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    agent = cluster.agent("--visibility-timeout", "300")
    gate, told = Gate(tmp_path), tmp_path / "hash"
    os.mkfifo(told)
    script = f'echo $$ > {gate.begun}; read -r _ < {gate.attempt(1)}; exec "$@"'
    write = (sys.executable, "-c", WRITE, str(MEGABYTES), str(told))
    job_id = submitted(cluster, "--", "sh", "-c", script, "sh", *write)
    gate.wait()
    cluster.broker.kill()
    gate.open(1)
    agent.line("waiting for the broker")
    written = told.read_text()  # once the command has written all, with nobody to tell
    cluster.broker.start()
    assert monitored(cluster, job_id) == (0, written)
    assert most_memory(agent.pid) < AGENT_BYTES_MAX
