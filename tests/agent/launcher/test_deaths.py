"""Whoever of agent, launcher and keeper is killed, no process of a job outlives it by a second."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from airunner.agent.launcher import local
from airunner.agent.launcher.contract import Exit, LauncherDied, NoLauncher
from airunner.agent.launcher.local import ChildLauncher
from airunner.agent.launcher.process import KeptProcess
from airunner.agent.launcher.watchdog import KeeperProcess
from tests.agent.launcher.launching import (
    TIMEOUT_S,
    TREE,
    Watched,
    children_of,
    command,
    ended,
    numbers_of,
    python,
    read_lines,
    shell,
    tree_of,
    works,
)

pytestmark = pytest.mark.unmeasured

DEATH_S = 1.0  # what is promised
JOBS = 8

AGENT = f"""
import anyio, sys
from airunner.agent.launcher.local import start_launcher
from tests.agent.launcher.launching import TREE, read_lines, shell
async def main():
    launcher = start_launcher()
    processes = [await launcher.launch(shell(TREE)) for _ in range({JOBS})]
    pids = [pid for process in processes for pid in await read_lines(process.stdout, 3)]
    print(launcher.pid, *pids, flush=True)
    await anyio.sleep_forever()
anyio.run(main)
"""


def killed(agent: subprocess.Popen[bytes]) -> None:
    agent.kill()


def killed_with_its_group(agent: subprocess.Popen[bytes]) -> None:
    os.killpg(agent.pid, signal.SIGKILL)


def killed_when_its_keepers_are_stopped(agent: subprocess.Popen[bytes]) -> None:
    (launcher,) = children_of(agent.pid)
    for keeper in children_of(launcher):
        os.kill(keeper, signal.SIGSTOP)
    agent.kill()


@pytest.mark.parametrize("die", [killed, killed_with_its_group, killed_when_its_keepers_are_stopped])
def test_when_the_agent_is_killed_its_jobs_are(die: Callable[[subprocess.Popen[bytes]], None]) -> None:
    with python(AGENT, process_group=0) as agent:
        launcher, *jobs = numbers_of(agent)
        watched = Watched([launcher, *children_of(launcher), *jobs])
        assert len(jobs) == 3 * JOBS
        die(agent)
        assert watched.gone_within(DEATH_S)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_when_the_launcher_is_killed_its_jobs_are(launcher: ChildLauncher, number: signal.Signals) -> None:
    process = await launcher.launch(shell(TREE))
    watched = await tree_of(process, *children_of(launcher.pid))
    os.kill(launcher.pid, number)
    with pytest.raises(LauncherDied):
        await process.wait()
    with pytest.raises(LauncherDied):
        await process.end(TIMEOUT_S)
    assert watched.gone_within(DEATH_S)


async def test_a_waiting_launch_hears_of_the_launchers_death(launcher: ChildLauncher) -> None:
    os.kill(launcher.pid, signal.SIGSTOP)

    async def launch() -> None:
        with pytest.raises(LauncherDied):
            await launcher.launch(shell("true"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(launch)
        await anyio.wait_all_tasks_blocked()
        os.kill(launcher.pid, signal.SIGKILL)


async def test_after_its_death_another_serves(launcher: ChildLauncher) -> None:
    await works(launcher)
    first = launcher.pid
    watched = Watched([first, *children_of(first)])
    os.kill(first, signal.SIGKILL)
    assert watched.gone_within(DEATH_S)
    await works(launcher)
    assert launcher.pid != first


async def test_where_no_other_can_be_started_that_is_told_and_tried_again(
    launcher: ChildLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched([launcher.pid])
    os.kill(launcher.pid, signal.SIGKILL)
    assert watched.gone_within(DEATH_S)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/no/such/python")
        for _ in range(2):
            with pytest.raises(NoLauncher, match="No such file") as refused:
                await launcher.launch(shell("true"))
            assert refused.value.trouble.endswith("check that /no/such/python works, and restart the agent")
    await works(launcher)


async def test_a_launcher_of_other_software_is_not_started_beneath_an_agent_that_runs(
    launcher: ChildLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an upgrade in place the files are another version's than the agent in memory, and so is what they say."""
    upgraded = tmp_path / "wire.py"
    upgraded.write_text("upgraded")
    watched = Watched([launcher.pid])
    os.kill(launcher.pid, signal.SIGKILL)
    assert watched.gone_within(DEATH_S)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(local, "WIRE", upgraded)
        with pytest.raises(NoLauncher, match="airunner was upgraded") as refused:
            await launcher.launch(shell("true"))
        assert refused.value.trouble.endswith("airunner was upgraded meanwhile: restart the agent")
    await works(launcher)


async def test_when_a_keeper_is_killed_its_job_is_and_no_other(launcher: ChildLauncher) -> None:
    other = await launcher.launch(shell("read never; echo still here; exec sleep 1000"))
    await read_lines(other.stdout, 1)
    others_keeper = children_of(launcher.pid)
    process = await launcher.launch(shell(TREE))
    watched = await tree_of(process)
    (keeper,) = set(children_of(launcher.pid)) - set(others_keeper)
    os.kill(keeper, signal.SIGKILL)
    with pytest.raises(LauncherDied):
        await process.wait()
    assert watched.gone_within(DEATH_S)
    assert children_of(other.pid) == []
    assert await ended(other) == Exit(None, signal.SIGTERM)


@contextmanager
def unanswering(folder: Path) -> Iterator[None]:
    """While the block runs, a process that enters the folder waits, as on a disk of a server that is away."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)  # nobody reads the kernel's questions from it
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    assert libc.mount(b"nobody", os.fsencode(folder), b"fuse", 0, options.encode()) == 0, os.strerror(
        ctypes.get_errno()
    )
    try:
        yield
    finally:
        os.close(device)
        libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="only root may mount")
@pytest.mark.parametrize("kept", [False, True])
async def test_when_a_working_directory_does_not_answer_its_job_is_killed_and_no_other(
    launcher: ChildLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    if kept:  # a keeper is there already
        await (await launcher.launch(shell("true"))).wait()
    other = await launcher.launch(shell("echo up; read never; exec sleep 1000"))
    first = launcher.pid
    monkeypatch.setattr(local, "WAKE_S", 0.1)
    monkeypatch.setattr(local, "LAUNCH_S", 0.1)
    with unanswering(tmp_path), pytest.raises(LauncherDied, match="a disk that does not answer"):
        await launcher.launch(command("true", directory=tmp_path))
    monkeypatch.undo()
    await works(launcher)
    assert launcher.pid == first
    assert await read_lines(other.stdout, 1) == ["up"]
    assert await ended(other) == Exit(None, signal.SIGTERM)


async def test_an_idle_keeper_that_died_is_replaced(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell("exit 3"))
    await process.wait()
    await process.end(TIMEOUT_S)
    process.close()
    (keeper,) = children_of(launcher.pid)
    watched = Watched([keeper])
    os.kill(keeper, signal.SIGKILL)
    assert watched.gone_within(DEATH_S)
    await works(launcher)


async def test_closing_the_launcher_ends_every_job(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell(TREE))
    watched = await tree_of(process, launcher.pid)
    await launcher.aclose()
    await launcher.aclose()
    assert watched.gone_within(DEATH_S)
    with pytest.raises(LauncherDied):
        await launcher.launch(shell("true"))


async def unkept(launcher: ChildLauncher) -> tuple[KeptProcess, Watched]:
    """A job whose launcher and keeper are stopped, as it could do itself; the keeper's and its processes."""
    process = await launcher.launch(shell(TREE))
    (keeper,) = children_of(launcher.pid)
    watched = await tree_of(process, keeper)
    os.kill(launcher.pid, signal.SIGSTOP)
    os.kill(keeper, signal.SIGSTOP)
    return process, watched


async def test_when_launcher_and_keeper_are_killed_at_once_nothing_runs_by_the_time_that_it_is_told(
    launcher: ChildLauncher,
) -> None:
    process, watched = await unkept(launcher)
    for pid in (*children_of(launcher.pid), launcher.pid):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(LauncherDied):
        await process.wait()
    assert watched.gone_within(0)


async def test_a_stopped_keeper_is_killed_with_its_job_when_its_launcher_has_died(launcher: ChildLauncher) -> None:
    process, watched = await unkept(launcher)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(launcher.watch)
        await anyio.wait_all_tasks_blocked()
        os.kill(launcher.pid, signal.SIGKILL)
        with pytest.raises(LauncherDied):
            await process.wait()
        assert watched.gone_within(0)
        process.close()
        await works(launcher)
        tasks.cancel_scope.cancel()


async def test_to_end_a_job_its_stopped_keeper_is_woken(launcher: ChildLauncher) -> None:
    process, _ = await unkept(launcher)
    assert await ended(process, 0) == Exit(None, signal.SIGKILL)


async def test_a_keeper_that_is_stopped_again_and_again_is_killed_with_its_job(
    launcher: ChildLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, watched = await unkept(launcher)
    monkeypatch.setattr(KeeperProcess, "wake", lambda _: None)
    with pytest.raises(LauncherDied):
        await process.end(0)
    assert watched.gone_within(0)


def unwakeable(process: subprocess.Popen[bytes], number: int) -> None:
    """Its job stops it again."""
    if number != signal.SIGCONT:
        os.kill(process.pid, number)


async def test_a_stopped_launcher_is_woken_by_the_next_launch_and_one_that_is_stopped_again_is_killed(
    launcher: ChildLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "WAKE_S", 0.1)
    os.kill(launcher.pid, signal.SIGSTOP)
    await works(launcher)
    monkeypatch.setattr(local, "LAUNCH_S", 0.1)
    monkeypatch.setattr(KeeperProcess, "wake", lambda _: None)
    monkeypatch.setattr(subprocess.Popen, "send_signal", unwakeable)
    (keeper,) = children_of(launcher.pid)
    os.kill(launcher.pid, signal.SIGSTOP)
    os.kill(keeper, signal.SIGSTOP)
    with pytest.raises(LauncherDied):
        await launcher.launch(shell("exit 4"))  # by the keeper that is there
    with pytest.raises(LauncherDied):
        await launcher.launch(shell("exit 5"))  # by one that the launcher is to make
