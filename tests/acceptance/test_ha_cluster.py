"""What `make up-ha` starts: two brokers on PostgreSQL, of which one may be lost while a job runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hacluster
import pytest

from tests.acceptance.running import REPOSITORY, Gate, environment, run
from tests.postgresql.serving import VERSIONS, require


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that is not there yet, where the user who runs PostgreSQL for root can be: pytest's folders are closed."""
    folder = Path(tempfile.mkdtemp(prefix="ha-"))
    folder.chmod(0o711)
    yield folder / "home"
    shutil.rmtree(folder)


UP = """
import sys
from pathlib import Path
import hacluster
hacluster.PORTS = (hacluster.Ports.free(), hacluster.Ports.free())
sys.exit(hacluster.up(Path(sys.argv[1])))
"""
"""`make up-ha`, on other ports."""


@contextmanager
def running(home: Path) -> Iterator[dict[str, str]]:
    """The processes of Procfile.ha, and the environment of their clients."""
    require(VERSIONS[0])
    scripts = str(REPOSITORY / "scripts")
    environ = {**environment(home), "PYTHONPATH": f"{REPOSITORY}:{scripts}"}
    up = subprocess.run([sys.executable, "-c", UP, home], env=environ, capture_output=True, text=True, check=False)
    log = home / "cluster.log"
    assert up.returncode == 0, up.stderr + (log.read_text() if log.exists() else "")
    try:
        (brokers,) = re.findall(r"export AIRUNNER_BROKER=(\S+)", up.stdout)
        yield {**environment(home), "AIRUNNER_BROKER": brokers}
    finally:
        assert hacluster.down(home) == 0


def lose(home: Path, name: str) -> None:
    """Kill a process of the cluster for good: who would start it again is stopped before."""
    log = (home / "cluster.log").read_text()
    shell = int(re.findall(rf"{name}\.1 started \(pid=(\d+)\)", log)[-1])
    os.kill(shell, signal.SIGSTOP)
    (process,) = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
    os.kill(int(process), signal.SIGKILL)


def test_a_job_outlives_the_broker_that_it_was_submitted_to(home: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with running(home) as environ:
        first, second = environ["AIRUNNER_BROKER"].split(",")
        for broker in (first, second):
            done = run(environ, "submit", "--broker", broker, "--", "echo", "hello")
            assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
        words = ["submit", "--no-monitor", "--broker", first, "--", "sh", "-c", gate.script]
        job_id = run(environ, *words).stdout.decode().strip()
        gate.wait()
        lose(home, "broker-a")
        gate.open(1)
        followed = run(environ, "monitor", job_id, timeout_s=90)
        assert (followed.returncode, followed.stdout) == (0, b"early\nbetween\nlate\n"), followed.stderr
        after = run(environ, "submit", "--broker", second, "--", "echo", "after")
        assert (after.returncode, after.stdout) == (0, b"after\n"), after.stderr


def test_what_up_ha_needs_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hacluster, "DEBIAN", tmp_path)
    with pytest.raises(hacluster.CannotStart, match="apt-get install postgresql"):
        hacluster.postgres_programs({"PATH": str(tmp_path)})
    with pytest.raises(hacluster.CannotStart, match="set AIRUNNER_HOME to a shorter one"):
        hacluster.make_database(tmp_path / ("x" * 100), {"POSTGRES_AS": ""})
