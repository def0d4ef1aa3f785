"""The simulated world holds every law, finds every lie, and repeats itself to the byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 40  # `make sim` runs 1,000, and holds that these reach every rare state


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it is slow
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env=unmeasured,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(400)
def test_no_law_is_broken() -> None:
    done = simulate("--seeds", f"0:{SEEDS}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} seeds" in done.stdout


@pytest.mark.timeout(400)
def test_every_mutant_is_found() -> None:
    done = simulate("--mutants")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("store", ["memory", "sqlite", "dicts"])
def test_a_seed_is_the_same_whenever_it_is_run(store: str) -> None:
    first, second = (simulate("--seed", "5", "--store", store, "--trace") for _ in range(2))
    assert untimed(first) == untimed(second)
    assert "digest" in first.stdout


def untimed(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Without what the machine's own speed says."""
    return [line for line in done.stdout.splitlines() if "processor time" not in line]
