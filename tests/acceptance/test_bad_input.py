"""What is wrong is said in one line that tells what to do, and the exit code is not 0."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.running import Cluster, RunningBroker, environment, run

pytestmark = pytest.mark.timeout(60)


def test_a_key_that_is_not_listed_is_not_let_in(broker: RunningBroker, home: Path) -> None:
    (home / "certs" / "allowed-clients").write_text("# nobody\n")
    for command in ("list", "agent"):
        done = run(environment(home, {"AIRUNNER_BROKER": broker.requests}), command)
        assert (done.returncode, b"allow-list" in done.stderr, b"Traceback" in done.stderr) == (77, True, False)


@pytest.mark.parametrize("command", ["show", "monitor"])
def test_a_job_that_there_is_not_is_named(standing: Cluster, command: str) -> None:
    done = standing.airunner(command, "no-such-job")
    assert (done.returncode, b"there is no job no-such-job" in done.stderr) == (1, True)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_a_closed_standard_stream_is_no_bug_of_ours(standing: Cluster, closed: str) -> None:
    words = ["sh", "-c", f'exec "$0" -m airunner list {closed}', sys.executable]
    done = subprocess.run(
        words, env=standing.environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
