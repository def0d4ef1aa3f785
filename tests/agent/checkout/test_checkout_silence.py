"""How long a checkout waits for git: a played git, on virtual time."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from airunner.agent.checkout.git import GIT_GRACE_S, CheckoutFailed
from airunner.agent.launcher.contract import Exit, LauncherDied, LaunchSpec, Process
from airunner.agent.workspace.workspace import Workspace
from tests.agent.checkout.conftest import Checkout
from tests.agent.playing import PlayedProcess, PlayedSource
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture


class Progress(PlayedSource):
    """A line after each of the pauses."""

    def __init__(self, pauses_s: tuple[float, ...], over: anyio.Event) -> None:
        super().__init__(over)
        self._pauses_s = list(pauses_s)

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        if self._pauses_s:
            await anyio.sleep(self._pauses_s.pop(0))  # virtual
            return b"Receiving objects:  10% (1/10)\r"[:max_bytes]
        return await super().receive(max_bytes)


class Git(PlayedProcess):
    """Never ends by itself, or has a launcher that dies; a launcher that starts it, too."""

    def __init__(self, *pauses_s: float, dies: bool = False) -> None:
        super().__init__(LaunchSpec(("git",), {}, Path("/")), stubborn=False)
        self.stderr = Progress(pauses_s, self._over)
        self._dies = dies

    async def launch(self, spec: LaunchSpec) -> Process:
        assert spec.argv[0] == "git"
        return self

    async def wait(self) -> Exit:
        if self._dies:
            raise LauncherDied
        return await super().wait()


async def check_out_with(git: Git, folder: Path, told: str) -> float:
    """How long it takes to say that."""
    begun_s = anyio.current_time()
    with pytest.raises(CheckoutFailed, match=told):
        await Checkout(git, Workspace(folder))("/srv/p")
    assert git.closed.is_set()
    return anyio.current_time() - begun_s


async def test_a_git_that_falls_silent_is_ended_within_a_minute(tmp_path: Path) -> None:
    git = Git()
    assert await check_out_with(git, tmp_path, "wrote nothing for 45 s") < 60
    assert git.graces_s == [GIT_GRACE_S]


async def test_a_git_that_makes_progress_may_take_long(tmp_path: Path) -> None:
    assert await check_out_with(Git(*[40.0] * 20), tmp_path, "wrote nothing") == 20 * 40 + 45


async def test_no_git_may_take_for_ever(tmp_path: Path) -> None:
    git = Git(*[40.0] * 1_000)
    await check_out_with(git, tmp_path, "took longer than 3600 s")
    assert git.graces_s == [0]


async def test_a_dead_launcher_is_said_as_such(tmp_path: Path) -> None:
    git = Git(dies=True)
    with pytest.raises(LauncherDied):
        await Checkout(git, Workspace(tmp_path))("/srv/p")
    assert git.closed.is_set()
