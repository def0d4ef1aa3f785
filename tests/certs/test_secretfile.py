"""Files of ours are 0600 from the first byte, whole or absent, and not believed when others could touch them."""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from airunner.certs.secretfile import (
    FILE_BYTES_MAX,
    MissingFile,
    create,
    locked,
    make_folder,
    read_public,
    read_secret,
    replace,
)
from airunner.protocol.errors import OperatorError

needs_a_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("write", [create, replace])
def test_a_file_is_closed_to_others_before_its_first_byte(
    write: Callable[[Path, bytes], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    fchmod = os.fchmod

    def observe(descriptor: int, mode: int) -> None:
        status = os.fstat(descriptor)
        seen.append((stat.S_IMODE(status.st_mode), status.st_size))
        fchmod(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", observe)
    write(tmp_path / "key", b"secret")
    assert seen == [(0o600, 0)]
    assert mode_of(tmp_path / "key") == 0o600


def test_a_umask_that_takes_our_own_bits_does_not(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        make_folder(tmp_path / "a" / "b")
        create(tmp_path / "a" / "b" / "key", b"secret")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "a") == 0o700
    assert mode_of(tmp_path / "a" / "b") == 0o700
    assert read_secret(tmp_path / "a" / "b" / "key", "the key") == b"secret"


def test_create_leaves_what_exists_and_follows_no_link_that_leads_elsewhere(tmp_path: Path) -> None:
    assert create(tmp_path / "key", b"first")
    assert not create(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"
    (tmp_path / "link").symlink_to(tmp_path / "trap")
    assert not create(tmp_path / "link", b"secret")
    assert {path.name for path in tmp_path.iterdir()} == {"key", "link"}


def test_replace_is_a_new_file_for_those_who_read_the_old_one(tmp_path: Path) -> None:
    create(tmp_path / "list", b"old")
    with (tmp_path / "list").open("rb") as reader:
        replace(tmp_path / "list", b"newer")
        assert reader.read() == b"old"
    assert (tmp_path / "list").read_bytes() == b"newer"
    assert [path.name for path in tmp_path.iterdir()] == ["list"]


@pytest.mark.parametrize("write", [create, replace])
def test_a_folder_that_is_not_there_is_the_operators_to_mend(
    write: Callable[[Path, bytes], object], tmp_path: Path
) -> None:
    with pytest.raises(OperatorError, match=r"cannot write .*/missing/key: No such file"):
        write(tmp_path / "missing" / "key", b"secret")


@pytest.mark.usefixtures("open_umask")
def test_every_folder_is_closed_to_others_from_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    chmod = Path.chmod

    def observe(path: Path, mode: int) -> None:
        seen.append(mode_of(path))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", observe)
    make_folder(tmp_path / "a" / "b")
    assert seen == [0o700, 0o700]
    assert mode_of(tmp_path / "a") == 0o700
    assert mode_of(tmp_path / "a" / "b") == 0o700


def test_only_a_folder_is_one_and_it_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o755)
    make_folder(tmp_path / "shared")
    assert mode_of(tmp_path / "shared") == 0o755
    (tmp_path / "home").touch()
    with pytest.raises(OperatorError, match=r"home is not a folder"):
        make_folder(tmp_path / "home")
    with pytest.raises(OperatorError, match=r"cannot make the folder"):
        make_folder(tmp_path / "home" / "certs")
    with pytest.raises(OperatorError, match=r"cannot open the folder"), locked(tmp_path / "missing"):
        pass


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"the key .*/key is missing: run `airunner certs init`"):
        read_secret(tmp_path / "key", "the key")
    with pytest.raises(MissingFile, match=r"is missing: ask"):
        read_public(tmp_path / "key", "the key", if_missing="ask")


@pytest.mark.parametrize(
    ("read", "mode", "remedy"),
    [
        *((read_secret, mode, "chmod 600") for mode in (0o640, 0o604, 0o620, 0o602, 0o660, 0o666)),
        *((read_public, mode, "chmod go-w") for mode in (0o620, 0o602, 0o664)),
        (read_secret, 0o400, None),
        (read_public, 0o444, None),
    ],
)
def test_a_secret_that_others_can_touch_and_a_public_file_that_they_can_change_is_refused(
    read: Callable[[Path, str], bytes], mode: int, remedy: str | None, tmp_path: Path
) -> None:
    create(tmp_path / "key", b"content")
    (tmp_path / "key").chmod(mode)
    if remedy is None:
        assert read(tmp_path / "key", "the key") == b"content"
    else:
        with pytest.raises(OperatorError, match=rf"open to others \(mode {mode:04o}\).*: run `{remedy} .*/key`"):
            read(tmp_path / "key", "the key")


@needs_root
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    create(tmp_path / "key", b"secret")
    os.chown(tmp_path / "key", 65_534, -1)
    name = pwd.getpwuid(65_534).pw_name
    with pytest.raises(OperatorError, match=rf"belongs to {name}, .* run this as {name} \(`sudo -u {name} \.\.\.`\)$"):
        read_secret(tmp_path / "key", "the key")
    os.chown(tmp_path / "key", 54_321, -1)
    with pytest.raises(OperatorError, match=r"run this as the user 54321 \(`sudo -u '#54321' \.\.\.`\)"):
        read_secret(tmp_path / "key", "the key")


@needs_a_user
def test_a_folder_that_we_may_not_write_and_a_file_that_we_may_not_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o500)
    with pytest.raises(OperatorError, match=r"cannot be written"):
        make_folder(tmp_path / "home")
    create(tmp_path / "key", b"secret")
    (tmp_path / "key").chmod(0)
    with pytest.raises(OperatorError, match=r"cannot read the key .*/key: Permission denied"):
        read_secret(tmp_path / "key", "the key")


def test_what_is_not_a_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    descriptors = len(list(Path("/dev/fd").iterdir()))
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OperatorError, match=r"is not a file"):
            read_secret(path, "the key")
    assert len(list(Path("/dev/fd").iterdir())) == descriptors


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    create(tmp_path / "list", bytes(FILE_BYTES_MAX))
    assert len(read_public(tmp_path / "list", "the list")) == FILE_BYTES_MAX
    replace(tmp_path / "list", bytes(FILE_BYTES_MAX + 1))
    with pytest.raises(OperatorError, match=r"is bigger than 1048576 bytes"):
        read_public(tmp_path / "list", "the list")


def test_only_one_at_a_time_holds_the_lock_of_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path):
        other = os.open(tmp_path, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(other)
