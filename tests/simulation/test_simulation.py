"""The simulated world holds every law, finds every lie and repeats itself; and its oracle finds every forgery."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.acceptance.chaos_processes import unmeasured
from tests.acceptance.running import REPOSITORY
from tests.simulation.evidence import Evidence
from tests.simulation.forgeries_fleet import FLEET_FORGERIES as FORGERIES
from tests.simulation.history import History, unpack
from tests.simulation.oracle import LAWS, check

SEEDS = 40  # `make sim` runs 1,000, and holds that these reach every rare state
RECORDED = 20  # of them: five of each kind of store


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=REPOSITORY,
        env=unmeasured(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The histories of the first seeds."""
    with TemporaryDirectory(prefix="airunner-histories-") as made:
        done = simulate("--seeds", f"0:{RECORDED}", "--record", made)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Path(made)


@cache
def recorded(path: Path) -> Evidence:
    return Evidence(History(unpack(path.read_bytes())))


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("law", "name"), [(law, name) for law, forgeries in FORGERIES.items() for name in forgeries])
def test_a_forged_history_breaks_the_law(law: str, name: str, folder: Path) -> None:
    forge = FORGERIES[law][name]
    histories = (history for path in sorted(folder.iterdir()) for history in forge(recorded(path)))
    assert any(law in {violation.law for violation in check(history)} for history in histories)


def test_every_law_is_shown_to_be_broken() -> None:
    assert list(FORGERIES) == list(LAWS)


@pytest.mark.timeout(400)
def test_no_law_is_broken() -> None:
    done = simulate("--seeds", f"{RECORDED}:{SEEDS}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(400)
def test_every_mutant_is_found() -> None:
    done = simulate("--mutants")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(400)
@pytest.mark.parametrize("store", ["sqlite", "dicts", "shared", "dynamodb"])
def test_a_seed_is_the_same_whenever_it_is_run(store: str) -> None:
    first, second = (simulate("--seed", "5", "--store", store, "--trace") for _ in range(2))
    assert untimed(first) == untimed(second)
    assert "digest" in first.stdout


def untimed(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Without what the machine's own speed says."""
    return [line for line in done.stdout.splitlines() if "processor time" not in line]
