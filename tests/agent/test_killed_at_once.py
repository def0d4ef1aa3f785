"""Agent, launcher and keepers killed at once: the next agent finds what runs on, and ends it first."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airunner.agent.home import LockedHome, lock_home
from airunner.agent.launcher.mark import VARIABLE, end_marked, marked, new_home_mark, new_launcher_mark
from airunner.protocol.errors import OperatorError
from tests.acceptance.bounded import become, give, homes_of_an_ordinary_user, needs_root, user
from tests.agent.launcher.launching import TIMEOUT_S, Watched, children_of, numbers_of, python

# One of its tree has cleared its environment too, and is known by its parent alone.
AGENT = """
import anyio, sys
from pathlib import Path
from airunner.agent.launcher import local
from airunner.agent.home import lock_home
from tests.agent.launcher.launching import TREE, read_lines, shell
if sys.argv[2] == "without groups":
    local.own_group = lambda: None
async def main():
    place = lock_home(Path(sys.argv[1]))
    launcher = local.start_launcher([place.running], mark=place.mark, groups=place.groups)
    process = await launcher.launch(shell("env -i setsid sh -c 'echo $$; exec sleep 1000' &" + TREE))
    print(launcher.pid, process.pid, *await read_lines(process.stdout, 4), flush=True)
    await anyio.sleep_forever()
anyio.run(main)
"""
WITH_GROUPS, WITHOUT_GROUPS = "with groups", "without groups"


class Agent:
    """An agent with a job, and what is left of it when all who could end it are gone."""

    def __init__(self, home: Path, groups: str, become: tuple[str, ...] = ()) -> None:
        self._popen = python(AGENT, str(home), groups, become=become)
        self.launcher, *self.pids = numbers_of(self._popen)
        (self.keeper,) = children_of(self.launcher)
        self.job = Watched(self.pids)

    def kill(self, *, but_the_keeper: bool = False) -> None:
        """Each is stopped first, so that none of them can act on another's death."""
        assert self._popen.stdout is not None
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in (self._popen.pid, self.launcher, self.keeper):
                if number == signal.SIGSTOP or pid != self.keeper or not but_the_keeper:
                    os.kill(pid, number)
        self._popen.wait()
        self._popen.stdout.close()


@pytest.fixture
def other() -> Iterator[Watched]:
    """A process of another agent."""
    with subprocess.Popen(("sleep", "1000"), env={VARIABLE: f"{new_launcher_mark(new_home_mark())}.1"}) as process:
        yield Watched([process.pid])
        process.kill()


def taken(home: Path) -> LockedHome:
    """What an agent finds that takes this home, and lets go of it again."""
    place = lock_home(home)
    os.close(place.descriptor)
    os.close(place.running)
    return place


@pytest.mark.parametrize("groups", [WITH_GROUPS, WITHOUT_GROUPS])
def test_the_next_agent_of_the_home_has_ended_them_before_it_does_anything(
    tmp_path: Path, groups: str, other: Watched
) -> None:
    agent = Agent(tmp_path, groups)
    agent.kill()
    assert not agent.job.gone_within(0)
    place = taken(tmp_path)
    assert agent.job.gone_within(0)
    assert not other.gone_within(0)
    assert str(agent.pids[0]) in place.ended
    assert taken(tmp_path).ended == "", "once is enough"


@needs_root
def test_an_ordinary_users_agent_finds_its_own(other: Watched) -> None:
    with homes_of_an_ordinary_user() as folder:
        home = folder / "home"
        home.mkdir()
        give(home)
        agent = Agent(home, WITHOUT_GROUPS, become(user()))
        agent.kill()
        assert not agent.job.gone_within(0)
        script = "import sys; from pathlib import Path; from airunner.agent.home import lock_home"
        with python(f"{script}; lock_home(Path(sys.argv[1]))", str(home), become=become(user())) as taking:
            assert taking.wait() == 0
        assert agent.job.gone_within(0)
        assert not other.gone_within(0)


def test_an_agent_of_a_copied_home_ends_nothing_of_the_others(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "home", WITHOUT_GROUPS)
    shutil.copytree(tmp_path / "home", tmp_path / "copy")
    assert taken(tmp_path / "copy").ended == ""
    assert not agent.job.gone_within(0)
    agent.kill()
    assert taken(tmp_path / "home").ended, "its own are found as before"


def test_keepers_that_were_stopped_hold_up_no_other_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airunner.agent.home.KEEPERS_S", 0.1)
    agent = Agent(tmp_path, WITHOUT_GROUPS)
    agent.kill(but_the_keeper=True)
    keeper = Watched([agent.keeper])
    assert not keeper.gone_within(0)
    taken(tmp_path)
    assert agent.job.gone_within(0)
    assert keeper.gone_within(0)


def test_who_holds_the_lock_and_cannot_be_found_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airunner.agent.home.KEEPERS_S", 0.1)
    monkeypatch.setattr("airunner.agent.home.END_S", 0.1)
    folder = tmp_path / "1"
    folder.mkdir()
    lock = f"import fcntl; f = open({str(folder / 'running')!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX)"
    words = (sys.executable, "-c", f"{lock}; print(flush=True); input()")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        one.stdout.readline()
        with pytest.raises(OperatorError, match=r"still holds .*/running: end it"):
            lock_home(tmp_path)
        one.kill()


def test_a_session_that_has_borrowed_a_jobs_environment_is_nobodys_to_end() -> None:
    mark = f"{new_launcher_mark(new_home_mark())}.1"
    script = f"exec 3<&0; env {VARIABLE}={mark} sh -c 'echo $$; read never <&3' & exec sleep 1000"
    words = ("sh", "-c", script)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as shell:
        assert shell.stdout is not None
        borrower = int(shell.stdout.readline())
        assert list(marked(mark)) == [borrower]
        assert end_marked(mark, TIMEOUT_S) == []
        assert shell.poll() is None
        shell.kill()


def test_who_forks_on_and_on_is_ended() -> None:
    mark = f"{new_launcher_mark(new_home_mark())}.1"
    script = "for n in $(seq 1000); do setsid sh -c 'sleep 60 &' & done"
    with subprocess.Popen(("sh", "-c", f"echo; {script}"), stdout=subprocess.PIPE, env={VARIABLE: mark}) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        assert end_marked(mark, TIMEOUT_S) == []
        assert marked(mark) == {}
