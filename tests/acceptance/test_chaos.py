"""Real processes, really killed, for a short while; `make chaos` does it for longer."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.bounded import homes_of_an_ordinary_user
from tests.acceptance.chaos_processes import airunner_processes, breaking, job_processes


@pytest.fixture
def folder() -> Iterator[Path]:
    with homes_of_an_ordinary_user() as made:  # one of its agents is
        yield made


chaos = partial(breaking, "tests.acceptance.chaos")


@pytest.mark.timeout(120)
def test_nothing_is_lost_done_twice_holed_or_left_behind_whoever_is_killed(folder: Path) -> None:
    with chaos(folder, "--seconds", "10") as run:
        said, _ = run.communicate()
    assert run.returncode == 0, said
    assert "processes left behind   0" in said


@pytest.mark.timeout(60)
def test_a_run_that_is_interrupted_ends_all_that_it_began(folder: Path) -> None:
    with chaos(folder, "--seconds", "600") as run:
        assert run.stdout is not None
        next(line for line in run.stdout if "jobs accepted" in line)
        (made,) = folder.iterdir()
        assert airunner_processes(made / "home")
        run.send_signal(signal.SIGINT)
        run.stdout.read()
    assert run.returncode == 128 + signal.SIGINT
    assert not airunner_processes(made / "home")
    assert not job_processes(made / "home")
    assert not made.exists()
