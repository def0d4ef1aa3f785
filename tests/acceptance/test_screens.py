"""What a job writes on somebody's terminal: its colours and no attack; and every byte where it is asked for."""

from __future__ import annotations

import os
import sys

import pytest
from ptyprocess import PtyProcess

from tests.acceptance.running import Cluster

pytestmark = pytest.mark.timeout(60)

WRITTEN = b"\x1b[31mred\x1b[0m \x1b]52;c;cm0gLXJmIC8K\x07\x1b[6n\x1b]0;title\x1b\\end\n"
FIT = b"\x1b[31mred\x1b[0m end\r\n"
JOB = ["submit", "--quiet", "--", sys.executable, "-c", f"import os; os.write(1, {WRITTEN!r})"]


def on_a_terminal(cluster: Cluster, *arguments: str) -> bytes:
    """All that a person's terminal gets of `airunner ARGUMENTS`."""
    child = PtyProcess.spawn([sys.executable, "-m", "airunner", *arguments], env=cluster.environ)
    seen = b""
    try:
        while True:
            seen += os.read(child.fd, 65_536)
    except OSError:  # which is how Linux ends a terminal
        return seen
    finally:
        child.close(force=True)


def test_a_terminal_gets_colours_and_a_pipe_gets_every_byte(standing: Cluster) -> None:
    assert on_a_terminal(standing, *JOB).replace(b"\x1b[0m\x1b[0m", b"\x1b[0m") in (FIT, FIT + b"\x1b[0m")
    raw = on_a_terminal(standing, JOB[0], "--raw", *JOB[1:])
    assert raw == WRITTEN.replace(b"\n", b"\r\n")
    assert standing.airunner(*JOB).stdout == WRITTEN
    job_id = standing.airunner("list", "--json").stdout.split(b'"id":"')[1].split(b'"')[0].decode()
    assert on_a_terminal(standing, "monitor", "--quiet", job_id).startswith(FIT)
    assert standing.airunner("monitor", "--quiet", job_id).stdout == WRITTEN
