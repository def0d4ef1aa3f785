"""Control groups, where this machine has any: each job in its own, and none left."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from airunner.agent.launcher.child.cgroup import PREFIX, Limits, OomKills, end_groups, missing_controllers, own_group
from airunner.agent.launcher.contract import LauncherDied
from airunner.agent.launcher.local import ChildLauncher, start_launcher
from airunner.protocol.errors import OperatorError
from tests.agent.launcher.launching import TIMEOUT_S, Watched, children_of, read_lines, shell

pytestmark = pytest.mark.skipif(own_group() is None, reason="no group that we may write")

MEMORY, PROCESSES = Limits(memory_bytes=64 << 20), Limits(processes=8)


async def test_each_job_is_in_a_group_of_its_own_and_none_is_left(launcher: ChildLauncher) -> None:
    base = own_group()
    assert base is not None
    processes = [await launcher.launch(shell("grep ^0:: /proc/self/cgroup; exec sleep 1000")) for _ in range(3)]
    groups = [Path((await read_lines(process.stdout, 1))[0].removeprefix("0::")) for process in processes]
    (folder,) = base.glob(f"{PREFIX}{launcher.pid}-*")
    assert {group.parent.name for group in groups} == {folder.name}
    assert {group.name for group in groups} == {group.name for group in folder.glob("[0-9]*")}
    assert len(set(groups)) == 3
    await launcher.aclose()
    assert not folder.exists()


async def test_what_a_killed_keeper_kept_is_killed_in_one_step(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell("setsid sh -c 'while :; do sleep 1000; done' & echo $!; exec sleep 1001"))
    (inner,) = await read_lines(process.stdout, 1)
    watched = Watched([process.pid, int(inner)])
    (keeper,) = children_of(launcher.pid)
    os.kill(keeper, signal.SIGKILL)
    with pytest.raises(LauncherDied):
        await process.wait()
    assert watched.gone_within(1)


def test_groups_are_removed_as_soon_as_the_kernel_says_that_nothing_runs_in_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("airunner.agent.launcher.child.cgroup.KILL_AGAIN_MS", 60_000)  # longer than this test may take
    base = own_group()
    assert base is not None
    folder = base / f"{PREFIX}{os.getpid()}-test"
    inner = folder / "1" / "of a job's own"
    inner.mkdir(parents=True)
    with subprocess.Popen(("sleep", "1000")) as process:
        (inner / "cgroup.procs").write_text(str(process.pid))
        assert end_groups(folder, TIMEOUT_S) == []
        assert not folder.exists()


@pytest.mark.parametrize(
    ("limits", "script", "oom", "code"),
    [
        (MEMORY, "exec tail /dev/zero", True, None),
        (PROCESSES, "for n in 1 2 3 4 5 6 7 8; do sleep 1000 & done", False, 2),
    ],
)
async def test_a_bound_that_cannot_be_kept_is_not_promised(
    limits: Limits, script: str, *, oom: bool, code: int | None
) -> None:
    base = own_group()
    assert base is not None
    if missing := missing_controllers(base, limits):
        with pytest.raises(OperatorError, match=f"for {missing[0]}; see `airunner doctor`"):
            start_launcher(limits=limits)
        return
    launcher = start_launcher(limits=limits)
    process = await launcher.launch(shell(script))
    exit_ = await process.wait()
    assert (exit_.oom, exit_.exit_code) == (oom, code)
    process.close()
    await launcher.aclose()


def test_whom_the_kernel_killed_is_counted_where_it_tells(tmp_path: Path) -> None:
    assert (OomKills(None).count(), OomKills(tmp_path).count()) == (0, 0)
    (tmp_path / "memory.events").write_text("low 0\nhigh 3\nmax 7\noom 2\noom_kill 4\noom_group_kill 0\n")
    assert OomKills(tmp_path).count() == 4
