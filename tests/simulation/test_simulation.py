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

SEEDS = 16  # four of each kind of store; `make sim` runs 1,000, and holds that these reach every rare state
AGAIN = range(4, 8)  # of them: one of each kind


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
    """The histories of the first seeds, in which no law is broken."""
    with TemporaryDirectory(prefix="airunner-histories-") as made:
        done = simulate("--seeds", f"0:{SEEDS}", "--record", made)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Path(made)


@pytest.mark.timeout(400)
def test_no_law_is_broken(folder: Path) -> None:
    assert sorted(int(recording.name) for recording in folder.iterdir()) == list(range(SEEDS))


@pytest.mark.timeout(400)
def test_a_seed_is_the_same_whenever_it_is_run(folder: Path, tmp_path: Path) -> None:
    simulate("--seeds", f"{AGAIN.start}:{AGAIN.stop}", "--record", str(tmp_path))
    first, second = ([history(place / str(seed)).digest() for seed in AGAIN] for place in (folder, tmp_path))
    assert first == second


def history(path: Path) -> History:
    return History(unpack(path.read_bytes()))


@cache
def recorded(path: Path) -> Evidence:
    return Evidence(history(path))


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("law", "name"), [(law, name) for law, forgeries in FORGERIES.items() for name in forgeries])
def test_a_forged_history_breaks_the_law(law: str, name: str, folder: Path) -> None:
    forge = FORGERIES[law][name]
    forged = (bad for path in sorted(folder.iterdir()) for bad in forge(recorded(path)))
    assert any(law in {violation.law for violation in check(bad)} for bad in forged)


def test_every_law_is_shown_to_be_broken() -> None:
    assert list(FORGERIES) == list(LAWS)


@pytest.mark.timeout(400)
def test_every_mutant_is_found() -> None:
    done = simulate("--mutants", "--search")  # the seeds that have shown them are tried first
    assert done.returncode == 0, done.stdout + done.stderr
