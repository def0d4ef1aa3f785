"""Lets coverage follow into the launcher, which is otherwise given nothing of the environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airunner.agent.launcher import launcherprocess

COVERAGE_VARIABLE = "COVERAGE_PROCESS_CONFIG"  # how coverage reaches the processes that a measured one starts


@pytest.fixture(autouse=True, scope="session")
def measured_launcher() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcherprocess, "_PASSED_ON", (*launcherprocess._PASSED_ON, COVERAGE_VARIABLE))
        yield
