"""A launcher, and an agent on stage, for tests of the agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf
from pathlib import Path

import anyio
import pytest

from airunner.agent.launcher.contract import LaunchSpec
from airunner.agent.launcher.local import ChildLauncher, start_launcher
from airunner.agent.launcher.process import KeptProcess
from tests.agent.playing import Stage, staged
from tests.virtualtime import real_time  # noqa: F401 - a fixture

TEST_S = 15.0  # less than the timeout of a test, so that the launcher is closed first


@pytest.fixture
async def launcher() -> AsyncIterator[ChildLauncher]:
    """A launcher; what was started by it and is not closed by the test is closed with it."""
    launcher = start_launcher()
    launch, started = launcher.launch, list[KeptProcess]()

    async def launch_and_note(spec: LaunchSpec, deadline_s: float = inf) -> KeptProcess:
        started.append(await launch(spec, deadline_s))
        return started[-1]

    launcher.launch = launch_and_note  # type: ignore[method-assign]
    try:
        with anyio.fail_after(TEST_S):
            yield launcher
    finally:
        await launcher.aclose()
        for process in started:
            process.close()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """An agent with one slot, whose home is `tmp_path`."""
    async with staged(tmp_path) as stage:
        yield stage
