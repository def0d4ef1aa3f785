"""Which users jobs may run as, and how they reach their folders."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from airunner.agent.workspace.jobuser import JobUser, JobUsers, job_users, let_pass
from airunner.agent.workspace.workspace import make_workspace
from airunner.agent.workspace.workspaces import Workspaces
from airunner.protocol.errors import OperatorError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run jobs as other users")
SOMEBODY = JobUser("54321", 54_321, 54_322, (54_322, 54_323))


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("named", "slots", "why"),
    [
        (["root"], 1, "name another user"),
        (["0:5"], 1, "name another user"),
        (["5:0"], 1, "name another user"),
        (["no-such-user"], 1, "there is no such user"),
        ([""], 1, "there is no such user"),
        (["nobody:x"], 1, "expected USER, UID or UID:GID"),
        (["7001,7002"], 3, "one for each"),
        (["7001", "7001"], 2, "named twice"),
        ([str(2**32 - 1)], 1, "ids go up to"),
    ],
)
def test_users_that_cannot_be_are_refused(named: list[str], slots: int, why: str) -> None:
    with pytest.raises(OperatorError, match=why):
        job_users(named, slots)


@pytest.mark.usefixtures("as_root")
def test_users_are_named_or_numbered_and_have_the_groups_of_a_login() -> None:
    nobody = pwd.getpwnam("nobody")
    groups = tuple(os.getgrouplist("nobody", nobody.pw_gid))
    first, second, third = job_users(["nobody, 54321:54322", "54324"], 3)
    assert first == JobUser("nobody", nobody.pw_uid, nobody.pw_gid, groups)
    assert second == JobUser("54321", 54_321, 54_322, (54_322,))
    assert third == JobUser("54324", 54_324, 54_324, (54_324,))
    assert job_users([str(nobody.pw_uid)], 9) == (first,)
    assert job_users([], 9) == ()


def test_only_root_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    with pytest.raises(OperatorError, match="needs an agent that is root"):
        job_users(["nobody"], 1)


def test_one_is_shared_and_several_are_not() -> None:
    other = JobUser("b", 7, 7, (7,))
    assert JobUsers([]).assign() is None
    shared = JobUsers([SOMEBODY])
    assert [shared.assign(), shared.assign()] == [SOMEBODY, SOMEBODY]
    shared.give_back(SOMEBODY)
    apart = JobUsers([SOMEBODY, other])
    assert [apart.assign(), apart.assign()] == [SOMEBODY, other]
    apart.give_back(other)
    assert apart.assign() == other


def test_a_users_environment_is_not_the_agents() -> None:
    made = SOMEBODY.environment({"USER": "root", "SSH_AUTH_SOCK": "/s", "SHELL": "/bin/zsh", "LANG": "C"})
    assert made == {"USER": "54321", "LOGNAME": "54321", "LANG": "C"}


def test_folders_are_made_passable_and_stay_unlisted(tmp_path: Path) -> None:
    place = tmp_path / "home" / "workspaces"
    place.mkdir(parents=True)
    for folder in (tmp_path, place.parent, place):
        folder.chmod(0o700)
    outside = [each for each in tmp_path.resolve().parents if not SOMEBODY.may_pass(each.stat())]
    with pytest.raises(OperatorError, match=f"cannot pass through {(outside or [tmp_path])[-1]} "):
        let_pass([SOMEBODY], place, [place.parent, place])
    assert [folder.stat().st_mode & 0o777 for folder in (place.parent, place)] == [0o711, 0o711]


@needs_root
def test_who_gets_through_a_folder_is_told_as_the_kernel_does(tmp_path: Path) -> None:
    for uid, gid, mode, may in (
        (54_321, 0, 0o100, True),
        (54_321, 0, 0o011, False),
        (0, 54_323, 0o010, True),
        (0, 54_322, 0o701, False),
        (0, 0, 0o001, True),
        (0, 0, 0o770, False),
    ):
        os.chown(tmp_path, uid, gid)
        tmp_path.chmod(mode)
        assert SOMEBODY.may_pass(tmp_path.stat()) is may


@needs_root
def test_a_users_workspace_is_in_a_folder_of_the_agents_and_never_anothers(tmp_path: Path) -> None:
    workspaces = Workspaces(tmp_path, JobUsers([SOMEBODY]))
    workspace = workspaces.acquire()
    assert workspace.user == SOMEBODY
    assert (workspace.root.stat().st_uid, workspace.root.stat().st_mode & 0o777) == (0, 0o711)
    assert {(folder.stat().st_uid, folder.stat().st_mode & 0o777) for folder in workspace.folders} == {(54_321, 0o700)}
    assert not workspaces.reclaim(workspace), "untouched as it is"
    assert make_workspace(tmp_path).user is None
