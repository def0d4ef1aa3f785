"""PostgreSQL fails over while brokers, agents and users work; `make failovers` does it more often."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.chaos_processes import breaking
from tests.acceptance.failovers import GONE
from tests.postgresql.serving import require

pytestmark = pytest.mark.timeout(300)
failovers = partial(breaking, "tests.acceptance.failovers")


def test_failovers_to_a_synchronous_standby_lose_nothing(tmp_path: Path):
    require(18)
    with failovers(tmp_path, "--failovers", "2", "--version", "18") as run:
        said, _ = run.communicate()
    assert run.returncode == 0, said


def test_the_loss_of_which_an_asynchronous_standby_is_warned_is_found(tmp_path: Path):
    require(15)
    with failovers(tmp_path, "--failovers", "1", "--asynchronous") as run:
        said, _ = run.communicate()
    assert run.returncode == 0, said
    assert GONE in said
