"""A job does not outlive its deadline, whatever its agent does or cannot do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest

from airunner.agent.launcher.child.wire import deadline_ms
from airunner.agent.launcher.contract import Exit, LauncherDied, LeaseEnded, Process
from airunner.agent.launcher.local import ChildLauncher
from airunner.transport.timers import boot_s
from tests.agent.launcher.launching import (
    TIMEOUT_S,
    TREE,
    Watched,
    children_of,
    ended,
    numbers_of,
    python,
    read_lines,
    shell,
    tree_of,
    works,
)

pytestmark = pytest.mark.unmeasured

SOON_S = 0.05
LATER_S = 1.0  # time enough for what is to come before it
NEVER_S = float("inf")
AGENT = """
import anyio
from airunner.agent.launcher.contract import LeaseEnded
from airunner.agent.launcher.local import start_launcher
from airunner.transport.timers import boot_s
from tests.agent.launcher.launching import TREE, read_lines, shell
async def main():
    launcher = start_launcher()
    process = await launcher.launch(shell(TREE), boot_s() + 0.5)
    print(*await read_lines(process.stdout, 3), flush=True)
    try:
        print(await process.wait(), flush=True)
    except LeaseEnded:
        print("ended", flush=True)
    await launcher.aclose()
anyio.run(main)
"""


async def until_a_deadline_has_passed(launcher: ChildLauncher, deadline_s: float) -> None:
    """Whatever was due before `deadline_s` has been done by its keeper, or never will be."""
    try:
        process = await launcher.launch(shell("exec sleep 1000"), deadline_s)
    except LeaseEnded:
        return
    with pytest.raises(LeaseEnded):
        await process.wait()
    process.close()


async def test_at_the_deadline_the_whole_tree_is_killed_and_gone_when_it_is_told(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell(TREE))
    watched = await tree_of(process)
    process.keep_until(boot_s() + SOON_S)
    with pytest.raises(LeaseEnded):
        await process.wait()
    assert watched.gone_within(0)
    with pytest.raises(LeaseEnded):
        await process.end(TIMEOUT_S)


def test_a_stopped_agent_has_nothing_running_after_the_deadline() -> None:
    with python(AGENT) as agent:
        watched = Watched(numbers_of(agent))
        agent.send_signal(signal.SIGSTOP)
        assert watched.gone_within(TIMEOUT_S)
        agent.send_signal(signal.SIGCONT)
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"ended\n"


async def test_after_its_deadline_nothing_is_started(launcher: ChildLauncher, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(LeaseEnded):
        await launcher.launch(shell(f"touch {trace}"), boot_s())
    await works(launcher)
    assert len(children_of(launcher.pid)) == 1  # the same keeper
    assert not trace.exists()


async def test_a_deadline_that_is_moved_on_does_not_count(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell("exec sleep 1000"))
    soon_s = boot_s() + LATER_S
    process.keep_until(soon_s)
    process.keep_until(NEVER_S)
    await until_a_deadline_has_passed(launcher, soon_s + SOON_S)
    assert await ended(process) == Exit(None, signal.SIGTERM)


async def test_a_deadline_cuts_the_grace_short(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell(TREE))
    watched = await tree_of(process)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(raises_lease_ended, process)
        await anyio.wait_all_tasks_blocked()
        process.keep_until(boot_s())
    assert watched.gone_within(0)


async def raises_lease_ended(process: Process) -> None:
    with pytest.raises(LeaseEnded):
        await process.end(1000)


async def test_what_a_command_left_is_bound_by_the_deadline_too(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell("sleep 1000 & echo $!"))
    watched = Watched([int(line) for line in await read_lines(process.stdout, 1)])
    assert await process.wait() == Exit(0, None)
    process.keep_until(boot_s())
    assert watched.gone_within(TIMEOUT_S)
    with pytest.raises(LeaseEnded):
        await process.end(TIMEOUT_S)


async def test_a_deadline_binds_one_job_and_not_the_next_of_its_keeper(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell("exit 3"))
    assert await process.wait() == Exit(3, None)
    soon_s = boot_s() + LATER_S
    process.keep_until(soon_s)
    await process.end(TIMEOUT_S)
    process.keep_until(boot_s())  # nobody hears it
    process.close()
    follower = await launcher.launch(shell("exec sleep 1000"))
    await until_a_deadline_has_passed(launcher, soon_s + SOON_S)
    assert await ended(follower) == Exit(None, signal.SIGTERM)


async def test_of_a_dead_keeper_no_deadline_is_asked(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell("exec sleep 1000"))
    (keeper,) = children_of(launcher.pid)
    os.kill(keeper, signal.SIGKILL)
    with pytest.raises(LauncherDied):
        await process.wait()
    process.keep_until(NEVER_S)


async def test_a_deadline_is_told_without_waiting_for_a_keeper_that_does_not_read(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell("exec sleep 1000"))
    (keeper,) = children_of(launcher.pid)
    os.kill(launcher.pid, signal.SIGSTOP)  # or it would wake the keeper
    os.kill(keeper, signal.SIGSTOP)
    for _ in range(10_000):  # more than the socket holds
        process.keep_until(NEVER_S)
    os.kill(keeper, signal.SIGCONT)
    os.kill(launcher.pid, signal.SIGCONT)
    assert await ended(process) == Exit(None, signal.SIGTERM)


def test_a_deadline_is_never_later_on_the_wire() -> None:
    assert deadline_ms(8.2509) == 8_250
    assert deadline_ms(NEVER_S) is None
