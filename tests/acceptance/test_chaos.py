"""Real processes, really killed, for a short while; `make chaos` does it for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(300)
def test_nothing_is_lost_holed_or_left_behind_whoever_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.acceptance.chaos", "--seconds", "15"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "processes left behind   0" in done.stdout
