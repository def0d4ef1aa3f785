"""A launcher for tests of the agent, into which coverage follows, and the event loop that it is made for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from airunner.agent.launcher import launcherprocess
from airunner.agent.launcher.local import ChildLauncher, start_launcher

COVERAGE_VARIABLE = "COVERAGE_PROCESS_CONFIG"  # how coverage reaches the processes that a measured one starts
TEST_S = 15.0  # less than the timeout of a test, so that the launcher is closed first


@pytest.fixture(autouse=True, scope="session")
def measured_launcher() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcherprocess, "_PASSED_ON", (*launcherprocess._PASSED_ON, COVERAGE_VARIABLE))
        yield


@pytest.fixture
def anyio_backend() -> str:
    """As in production; `tests.virtualtime` is for modules whose processes are played."""
    return "asyncio"


@pytest.fixture
async def launcher() -> AsyncIterator[ChildLauncher]:
    launcher = start_launcher()
    try:
        with anyio.fail_after(TEST_S):
            yield launcher
    finally:
        await launcher.aclose()
