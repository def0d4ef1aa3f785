"""HOME and TMPDIR have short paths, which nobody else can take, and which are gone with the workspace."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airunner.agent.workspace import shortpaths
from airunner.agent.workspace.jobuser import JobUser
from airunner.agent.workspace.shortpaths import (
    LINK,
    NO_BASE,
    PATH_BYTES_MAX,
    PREFIX,
    bases_of,
    folders_of,
    make_link,
    remove_link,
    report_unusable,
)
from airunner.agent.workspace.workspace import clear_workspace, make_workspace, remove_workspaces
from airunner.agent.workspace.workspaces import Workspaces

SOMEBODY = JobUser("somebody", 65_534, 65_534, (65_534,))
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
Base = Callable[[int], Path]


@pytest.fixture
def base() -> Iterator[Base]:
    """Makes folders with a mode, such as that of /tmp, and with paths as short."""
    made = list[Path]()

    def make(mode: int = 0o1777) -> Path:
        made.append(Path(f"/tmp/{os.getpid()}-{len(made)}"))
        made[-1].mkdir()
        made[-1].chmod(mode)
        return made[-1]

    yield make
    for folder in made:
        assert not any(folder.iterdir()), "links were left"
        folder.rmdir()


@pytest.fixture
def long_home(tmp_path: Path) -> Path:
    home = tmp_path / ("a long name with blanks " * 8).strip()
    home.mkdir()
    return home


@pytest.mark.parametrize("user", [None, pytest.param(SOMEBODY, marks=ROOT_ONLY)])
def test_home_and_temporary_folder_are_short_and_private_wherever_the_agents_home_is(
    long_home: Path, base: Base, user: JobUser | None
) -> None:
    workspace = make_workspace(long_home, user, [base(0o1777)])
    assert workspace.link is not None
    assert stat.S_IMODE(workspace.link.parent.stat().st_mode) == (0o700 if user is None else 0o711)
    for short, real in zip((workspace.home, workspace.temporary), workspace.folders[1:], strict=True):
        assert len(os.fsencode(short)) <= PATH_BYTES_MAX
        assert short.resolve() == real
        assert not short.is_symlink()  # `find $HOME` would not follow it
        status = short.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, user.uid if user else os.geteuid())
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(short / ".ssh-control-path-of-forty-hexadecimal-digits-and-a-suffix.0123456"))
    assert clear_workspace(workspace.root, [workspace.link.parent.parent]) == []


def test_what_a_killed_agent_left_is_gone_with_its_links(tmp_path: Path, base: Base) -> None:
    bases = [base(0o1777), base(0o1777)]
    for place in (bases, bases[1:]):  # the second, while the first folder could not be used
        workspace = make_workspace(tmp_path, None, place)
        (workspace.home / "file").write_text("x")
        (workspace.temporary / "socket").symlink_to(tmp_path)
    assert remove_workspaces(tmp_path, bases) == []


def test_a_job_that_replaces_its_links_harms_nobody(tmp_path: Path, base: Base) -> None:
    bases = [base(0o1777)]
    precious = tmp_path / "precious"
    precious.write_text("x")
    workspaces = Workspaces(tmp_path, bases=bases)
    workspace = workspaces.acquire()
    assert workspace.link is not None
    workspace.link.unlink()
    workspace.link.symlink_to(tmp_path)
    assert not workspaces.reclaim(workspace)
    assert workspaces.clear(workspace) == []
    assert precious.exists()


def test_links_that_were_removed_meanwhile_are_made_again(tmp_path: Path, base: Base) -> None:
    """As systemd-tmpfiles does with what is old, while a workspace waits for its next job."""
    workspaces = Workspaces(tmp_path, bases=[base(0o1777)])
    first = workspaces.acquire()
    assert workspaces.reclaim(first)
    again = workspaces.acquire()
    assert again.home == first.home
    assert workspaces.reclaim(again)
    assert first.link is not None
    remove_link(first.link)
    second = workspaces.acquire()
    assert second.home.is_dir()
    assert second.home != first.home
    assert workspaces.reclaim(second)
    workspaces.close()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda folder: folder.chmod(0o777), id="others could replace what is in it"),
        pytest.param(lambda folder: folder.chmod(0o775), id="a group could"),
        pytest.param(lambda folder: os.chown(folder, 65_534, -1), id="it is another user's", marks=ROOT_ONLY),
        pytest.param(lambda folder: folder.chmod(0o1770), id="the job's user cannot pass"),
        pytest.param(lambda folder: folder.rmdir() or folder.write_text(""), id="it is a file"),
    ],
)
def test_a_folder_that_is_not_safe_is_not_used(base: Base, spoil: Callable[[Path], object]) -> None:
    good = base(0o1777)
    bad = Path(f"{good}-bad")
    bad.mkdir()
    bad.chmod(0o1777)
    spoil(bad)
    try:
        link = make_link(Path("/name"), SOMEBODY, [bad, good])
        assert link == good / f"{PREFIX}name" / LINK
        remove_link(link)
    finally:
        bad.rmdir() if bad.is_dir() else bad.unlink()


def test_a_name_that_another_has_taken_is_not_used(base: Base) -> None:
    first, second = base(0o1777), base(0o1777)
    (first / f"{PREFIX}name").symlink_to("/etc")
    link = make_link(Path("/name"), None, [first, second])
    assert link == second / f"{PREFIX}name" / LINK
    remove_link(link)
    (first / f"{PREFIX}name").unlink()


NAME = "0123456789"


def test_agents_with_one_name_have_one_path_one_after_the_other(tmp_path: Path, base: Base) -> None:
    bases = [base(), base()]
    first = make_workspace(tmp_path / "one", None, bases, NAME)
    second = make_workspace(tmp_path / "two", None, bases, NAME)
    assert first.home == bases[0] / f"{PREFIX}{NAME}" / LINK / "home"
    assert second.root.name != NAME
    assert second.home.resolve() == second.root / "home", "it has paths of its own, while the first runs"
    assert [path.name for path in (tmp_path / "two/workspaces").iterdir()] == [second.root.name]
    assert clear_workspace(first.root, bases) == []
    third = make_workspace(tmp_path / "two", None, bases, NAME)
    assert third.home == first.home
    assert third.home.is_dir()
    for workspace in (second, third):
        assert clear_workspace(workspace.root, bases) == []


def test_an_agent_that_starts_again_leaves_what_another_uses_under_the_same_name(tmp_path: Path, base: Base) -> None:
    bases = [base()]
    killed = make_workspace(tmp_path / "one", None, bases, NAME)
    assert killed.link is not None
    remove_link(killed.link)
    used = make_workspace(tmp_path / "two", None, bases, NAME)
    assert remove_workspaces(tmp_path / "one", bases) == []
    assert not killed.root.exists()
    assert used.home.is_dir()
    assert clear_workspace(used.root, bases) == []


def test_the_path_of_an_agent_whose_home_is_gone_can_be_had(tmp_path: Path, base: Base) -> None:
    bases = [base()]
    gone = make_workspace(tmp_path / "one", None, bases, NAME)
    assert gone.link is not None
    gone.link.parent.chmod(0o777)
    shutil.rmtree(tmp_path / "one")
    workspace = make_workspace(tmp_path / "two", None, bases, NAME)
    assert workspace.home == gone.home
    assert workspace.home.is_dir()
    assert stat.S_IMODE(gone.link.parent.stat().st_mode) == 0o700
    assert clear_workspace(workspace.root, bases) == []


def lend(place: Path) -> None:
    place.mkdir()
    os.chown(place, 65_534, -1)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda place: place.symlink_to("/etc"), id="a link"),
        pytest.param(lambda place: place.symlink_to("/missing"), id="a link to nothing"),
        pytest.param(lambda place: place.write_text(""), id="a file"),
        pytest.param(os.mkfifo, id="a pipe"),
        pytest.param(lend, id="another user's", marks=ROOT_ONLY),
        pytest.param(lambda place: (place / LINK).mkdir(parents=True), id="a folder where the link is to be"),
        pytest.param(lambda place: place.mkdir() or (place / LINK).symlink_to("/etc"), id="a link to another place"),
    ],
)
def test_a_path_that_is_taken_is_neither_used_nor_changed(
    tmp_path: Path, base: Base, spoil: Callable[[Path], object]
) -> None:
    bases = [base(), base()]
    place = bases[0] / f"{PREFIX}{NAME}"
    spoil(place)
    before = place.lstat()
    workspace = make_workspace(tmp_path, None, bases, NAME)
    assert workspace.root.name != NAME
    assert workspace.home.resolve() == workspace.root / "home"
    assert clear_workspace(workspace.root, bases) == []
    assert place.lstat() == before
    shutil.rmtree(place) if stat.S_ISDIR(before.st_mode) else place.unlink()


def test_nobody_takes_a_path_while_its_agent_removes_it(tmp_path: Path, base: Base) -> None:
    bases = [base()]
    first = make_workspace(tmp_path / "one", None, bases, NAME)
    for place in folders_of(first.root, bases):
        (place / LINK).unlink()
        second = make_workspace(tmp_path / "two", None, bases, NAME)
        assert second.root.name != NAME
        assert clear_workspace(second.root, bases) == []
        place.rmdir()
    third = make_workspace(tmp_path / "two", None, bases, NAME)
    assert third.home == first.home
    assert clear_workspace(third.root, bases) == []


def test_a_name_is_free_again_as_soon_as_its_job_has_ended(tmp_path: Path, base: Base) -> None:
    """Though the job has left its workspace untouched, which makes other workspaces wait for the next job."""
    workspaces = Workspaces(tmp_path, bases=[base()])
    first = workspaces.acquire(NAME)
    assert not workspaces.reclaim(first)
    assert workspaces.clear(first) == []
    second = workspaces.acquire(NAME)
    assert second.home == first.home
    assert not workspaces.reclaim(second)
    assert workspaces.clear(second) == []


def test_without_any_such_folder_the_paths_are_long_and_the_agent_says_so(
    tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortpaths, "BASES", (tmp_path / "missing", tmp_path))  # which is too long itself
    said = list[str]()
    report_unusable(bases_of({}), (), said.append)
    workspace = make_workspace(tmp_path, None, bases_of({}))
    assert workspace.home == workspace.root / "home"
    assert workspace.home.is_dir()
    assert said == [NO_BASE]
    runtime = base(0o755)  # systemd's, which comes first
    bases = bases_of({"RUNTIME_DIRECTORY": f"{runtime}:/run/more"})
    assert bases[0] == runtime
    report_unusable(bases, (), said.append)
    assert said == [NO_BASE]
