"""Coverage of launchers and keepers: it follows into them here alone, as it makes each start dearer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airunner.agent.launcher import launcherprocess

VARIABLE = "COVERAGE_PROCESS_CONFIG"  # how coverage reaches the processes that a measured one starts


@pytest.fixture(autouse=True, scope="module")
def measured_launcher() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcherprocess, "_PASSED_ON", (*launcherprocess._PASSED_ON, VARIABLE))
        yield
