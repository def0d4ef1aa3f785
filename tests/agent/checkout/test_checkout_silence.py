"""How long a checkout waits for git: a played git, on virtual time."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from airunner.agent.checkout.checkout import Terms, check_out
from airunner.agent.checkout.git import GIT_GRACE_S, CheckoutFailed
from airunner.agent.checkout.repository import Rules
from airunner.agent.checkout.source import Source
from airunner.agent.launcher.contract import Exit, LauncherDied, LaunchSpec, Process, Survivor
from airunner.agent.workspace.workspace import Workspace
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture

pytestmark = pytest.mark.anyio

TERMS = Terms(Rules(allow_local=True), lambda: 0.0, lambda _: None)


class Played:
    """A launcher whose git writes a line after each of the pauses, and then never ends, or dies."""

    def __init__(self, *pauses_s: float, dies: bool = False) -> None:
        self.pauses_s = pauses_s
        self.dies = dies
        self.graces_s: list[float] = []
        self.closed = False

    async def launch(self, spec: LaunchSpec) -> Process:
        assert spec.argv[0] == "git"
        return PlayedProcess(self)


class PlayedProcess:
    def __init__(self, launcher: Played) -> None:
        self.pid = 1
        self._launcher = launcher
        self._over = anyio.Event()
        self.stdout = PlayedSource((), self._over)
        self.stderr = PlayedSource(launcher.pauses_s, self._over)

    async def wait(self) -> Exit:
        if self._launcher.dies:
            raise LauncherDied
        await anyio.sleep_forever()
        raise AssertionError

    def keep_until(self, deadline_s: float) -> None:
        raise AssertionError(deadline_s)

    async def end(self, grace_s: float) -> list[Survivor]:
        self._launcher.graces_s.append(grace_s)
        self._over.set()
        return []

    def close(self) -> None:
        self._launcher.closed = True


class PlayedSource:
    def __init__(self, pauses_s: tuple[float, ...], over: anyio.Event) -> None:
        self._pauses_s = list(pauses_s)
        self._over = over

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        if self._pauses_s:
            await anyio.sleep(self._pauses_s.pop(0))  # virtual
            return b"Receiving objects:  10% (1/10)\r"[:max_bytes]
        await self._over.wait()
        return b""

    def close(self) -> None:
        """Nothing is held."""


async def check_out_with(launcher: Played, workspace: Workspace) -> None:
    await check_out(launcher, Source(repository="/srv/p"), TERMS, workspace=workspace, agent_environ={})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


async def test_a_git_that_falls_silent_is_ended_within_a_minute(workspace: Workspace) -> None:
    played = Played()
    begun_s = anyio.current_time()
    with pytest.raises(CheckoutFailed, match="said nothing for 45 s"):
        await check_out_with(played, workspace)
    assert anyio.current_time() - begun_s < 60
    assert played.graces_s == [GIT_GRACE_S]
    assert played.closed


async def test_a_git_that_makes_progress_may_take_long(workspace: Workspace) -> None:
    begun_s = anyio.current_time()
    with pytest.raises(CheckoutFailed, match="said nothing"):
        await check_out_with(Played(*[40.0] * 20), workspace)
    assert anyio.current_time() - begun_s == 20 * 40 + 45


async def test_no_git_may_take_for_ever(workspace: Workspace) -> None:
    played = Played(*[40.0] * 1_000)
    with pytest.raises(CheckoutFailed, match="not done after 3600 s"):
        await check_out_with(played, workspace)
    assert played.graces_s == [0]
    assert played.closed


async def test_a_dead_launcher_is_said_as_such(workspace: Workspace) -> None:
    played = Played(dies=True)
    with pytest.raises(LauncherDied):
        await check_out_with(played, workspace)
    assert played.closed
