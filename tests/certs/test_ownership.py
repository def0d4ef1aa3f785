"""A home is fixed by names alone, and refused where others could change it, with the command that closes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airunner.__main__ import run
from airunner.certs.home import Home
from airunner.certs.ownership import own_home, unsafe_reason
from airunner.protocol.errors import OperatorError

Capture = pytest.CaptureFixture[str]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
NOBODY = 65_534


def refused(home: Home, match: str) -> None:
    with pytest.raises(OperatorError, match=match):
        own_home({"AIRUNNER_HOME": str(home.root)})


@pytest.mark.parametrize("folder", ["root", "certs", "clients", "queue_keys"])
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_of_the_home_that_others_may_write_is_refused(broker: Home, folder: str, mode: int) -> None:
    place: Path = getattr(broker, folder)
    place.mkdir(exist_ok=True)
    place.chmod(mode)
    refused(broker, rf"^{place} is open to others \(mode {mode:04o}\): run `chmod go-w {place}`$")
    place.chmod(0o755)
    assert own_home({"AIRUNNER_HOME": str(broker.root)}).root == broker.root


def test_a_folder_on_the_way_that_others_may_write_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    home = Home(shared / "deep" / "home")
    shared.mkdir()
    shared.chmod(0o757)
    remedy = rf"^{shared} is open to others \(mode 0757\), who could replace {home.root}: run `chmod go-w {shared}`"
    refused(home, remedy)
    home.root.mkdir(parents=True)
    refused(home, remedy)
    shared.chmod(0o1777)
    own_home({"AIRUNNER_HOME": str(home.root)})


def test_a_link_is_as_good_as_the_folders_on_both_of_its_ends(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    for folder in (shared, own / "home"):
        folder.mkdir(parents=True)
    (shared / "home").symlink_to(own / "home")
    (own / "link").symlink_to("../shared/home")
    (own / "loop").symlink_to("loop")
    shared.chmod(0o777)
    for name in (shared / "home", own / "link"):
        refused(Home(name), rf"^{shared} is open to others")
    own_home({"AIRUNNER_HOME": str(own / "home")})
    with pytest.raises(OSError, match="symbolic links"):
        unsafe_reason(own / "loop")


@needs_root
def test_a_folder_in_another_users_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "home").mkdir(parents=True)
    os.chown(theirs, NOBODY, -1)
    refused(Home(theirs / "home"), rf"^{theirs} belongs to \w+, who could replace {theirs / 'home'}")
    os.chown(theirs / "home", NOBODY, -1)
    refused(Home(theirs / "home"), r"run this as \w+ \(`sudo -u")


@needs_root
def test_a_group_of_the_users_own_may_write_on_the_way(tmp_path: Path) -> None:
    """Some systems give each user a group, and make folders for both."""
    shared = tmp_path / "shared"
    (shared / "home").mkdir(parents=True)
    shared.chmod(0o775)
    own_home({"AIRUNNER_HOME": str(shared / "home")})
    os.chown(shared, -1, 54_321)
    refused(Home(shared / "home"), r"^\S+shared is open to others")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("certs", ["broker", "--listen", "tcp://127.0.0.1:0"]),
        ("broker", ["broker", "--listen", "tcp://127.0.0.1:0"]),
        ("certs", ["agent", "--broker", "tcp://127.0.0.1:9"]),
        ("agent", ["agent", "--broker", "tcp://127.0.0.1:9"]),
        ("certs", ["list", "--broker", "tcp://127.0.0.1:9"]),
        ("certs", ["token", "--subject", "s"]),
        ("certs", ["certs", "add", "build-7", "--role", "client"]),
    ],
)
def test_nothing_starts_on_a_home_that_others_may_write(
    broker: Home, name: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = broker.root / name
    folder.mkdir(exist_ok=True)
    folder.chmod(0o770)
    monkeypatch.setenv("AIRUNNER_HOME", str(broker.root))
    assert run(words) == 64
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.endswith(f"{folder} is open to others (mode 0770): run `chmod go-w {folder}`\n")


def test_the_home_is_named_or_under_the_users_own_and_stays_put_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"": Path.home() / ".airunner", "~/elsewhere": Path.home() / "elsewhere", "here": tmp_path / "here"}
    homes = [Home.from_environment({"AIRUNNER_HOME": name} if name else {}) for name in named]
    monkeypatch.chdir("/")
    assert [home.root for home in homes] == list(named.values())
    assert Home.from_environment({"AIRUNNER_HOME": ""}).root == Path.home() / ".airunner"


@pytest.mark.parametrize(
    ("root", "fault"),
    [
        ("/dev/null", "it is not a folder"),
        ("file", "it is not a folder"),
        ("file/below", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("a" * 300, "File name too long"),
    ],
)
@pytest.mark.parametrize("words", [["list"], ["certs", "init"], ["agent"], ["token", "--subject", "s"], ["doctor"]])
def test_what_cannot_be_a_folder_is_no_home_and_nobody_is_advised_to_change_it(
    tmp_path: Path, root: str, fault: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    (tmp_path / "file").touch(0o666)
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv("AIRUNNER_HOME", str(tmp_path / root))
    assert run(words) == (78 if words == ["doctor"] else 64)
    told = "".join(capfd.readouterr())
    assert f"{tmp_path / root} cannot be the home folder: {fault}; set AIRUNNER_HOME to a folder of your own\n" in told
    assert "chmod" not in told


@pytest.mark.parametrize(
    "words",
    [
        ["token", "--subject", "s", "--signing-key"],
        ["certs", "import"],
        ["certs", "doctor", "--token-file"],
        ["broker", "--jwt-public-key"],
    ],
)
def test_a_file_of_the_system_that_is_named_by_mistake_stays_open(
    broker: Home, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (tmp_path / "passwd").chmod(0o646)
    monkeypatch.setenv("AIRUNNER_HOME", str(broker.root))
    assert run([*words, str(tmp_path / "passwd")]) in (64, 78)
    told = "".join(capfd.readouterr())
    assert str(tmp_path / "passwd") in told
    assert "chmod" not in told


def test_a_folder_that_all_users_share_is_left_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    refused(Home(tmp_path), "all users share it, so use a folder of your own$")


def test_advice_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    home = Home(tmp_path / "a b; c")
    home.root.mkdir(mode=0o757)
    home.root.chmod(0o757)
    refused(home, f"run `chmod go-w '{home.root}'`$")
