"""Folder ownership: who else could put files of their own in the place of ours, and the refusal to work there.

A key is worth what the folders above it are: who may write in one of them may rename what is in it and put something
else in its place. So a folder of ours, and every folder on the way to it, links followed, has to belong to us or to
root and be writable by nobody else, as `sshd` has it with StrictModes. As Debian's `sshd` has it, a folder *on the way*
may be writable by a group that is the user's own and has no other member. A folder with the sticky bit, such as /tmp,
may be on the way where what is next in it is ours: others can then neither rename nor remove that.

One check for `airunner certs doctor` and for all that start on a home. An access control list (POSIX) that lets others
write shows in the mode of the folder, as its mask.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from airunner.certs.home import Home
from airunner.protocol.errors import OperatorError

OTHERS_READ_OR_WRITE: Final = 0o077
OTHERS_WRITE: Final = 0o022
LINKS_MAX: Final = 40  # on the way to a folder, as the kernel's own bound
_ROOT: Final = 0


def own_home(environ: Mapping[str, str]) -> Home:
    """The home to work in: `$AIRUNNER_HOME`, or `~/.airunner`; nothing of it need exist yet.

    Raises `OperatorError` where others could change what is in it.
    """
    home = Home.from_environment(environ)
    refuse_open(home.root, home.certs, home.clients, home.queue_keys)
    return home


def refuse_open(*folders: Path) -> None:
    """Refuse folders that others may write; they need not exist yet.

    Raises `OperatorError`: the folder, and the command that closes it.
    """
    refuse_another_users(*folders)
    for folder in folders:
        try:
            fault = unsafe_reason(folder)
        except FileNotFoundError:
            fault = fault_on_the_way(folder)
        except OSError:
            continue  # the code that opens it says so
        if fault:
            raise OperatorError(fault)


def refuse_another_users(*folders: Path) -> None:
    """What root would make in them, their owner could not use.

    Raises `OperatorError` where we are root and one of them is there and another user's.
    """
    if os.geteuid() != _ROOT:
        return  # who may not write there is told by the attempt
    for folder in folders:
        try:
            owner = folder.stat().st_uid
        except OSError:
            continue  # it is not there, or nothing can be made in it
        if owner != _ROOT:
            raise OperatorError(f"{folder} belongs to {user_name(owner)}: {as_user(owner)}")


def unsafe_reason(path: Path, forbidden: int = OTHERS_WRITE) -> str:
    """Why what is at `path`, or in that folder, may be the work of others; empty where it may not.

    Raises `OSError` where it cannot be looked at.
    """
    remedy = f"chmod {'go-w' if forbidden == OTHERS_WRITE else 'go-rwx'} {path}"
    return fault_in(path.stat(), str(path), forbidden, "make it your own", remedy) or fault_on_the_way(path)


def fault_in(status: os.stat_result, called: str, forbidden: int, if_anothers: str, remedy: str) -> str:
    """The same of something that was looked at already."""
    if status.st_uid not in (os.geteuid(), _ROOT):
        return f"{called} belongs to {user_name(status.st_uid)}, who could change it: {if_anothers}"
    if status.st_mode & forbidden:
        return f"{called} is open to others (mode {stat.S_IMODE(status.st_mode):04o}): run `{remedy}`"
    return ""


def fault_on_the_way(path: Path) -> str:
    """Why others could put something else in the place of `path`, as far as that is there; empty where they could not.

    Raises `OSError` where a folder cannot be looked at.
    """
    for folder, status, inner in _steps(path):
        if status.st_uid not in _trusted():
            return (
                f"{folder} belongs to {user_name(status.st_uid)}, who could replace {path}: "
                "set AIRUNNER_HOME to a folder in one of your own"
            )
        if not _writable_by_others(status):
            continue
        if status.st_mode & stat.S_ISVTX and (inner is None or inner.st_uid in _trusted()):
            continue
        return (
            f"{folder} is open to others (mode {stat.S_IMODE(status.st_mode):04o}), who could replace {path}: "
            f"run `chmod go-w {folder}`, or set AIRUNNER_HOME to a folder elsewhere"
        )
    return ""


def user_name(uid: int) -> str:
    """As people know the user."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def as_user(uid: int) -> str:
    """How to do the same again as that user."""
    name = user_name(uid)
    word = name if " " not in name else f"'#{uid}'"
    return f"run this as {name} (`sudo -u {word} ...`)"


def _steps(path: Path) -> Iterator[tuple[Path, os.stat_result, os.stat_result | None]]:
    """Every folder on the way to `path` with what is next in it, links followed; None where that is not there."""
    folder, names = Path("/"), list(path.absolute().parts[1:])
    links = 0
    while names:
        name = names.pop(0)
        if name == "..":
            folder = folder.parent
            continue
        try:
            inner = (folder / name).lstat()
        except FileNotFoundError:
            yield folder, folder.lstat(), None
            return
        yield folder, folder.lstat(), inner
        if not stat.S_ISLNK(inner.st_mode):
            folder /= name
        elif links == LINKS_MAX:
            return  # nobody can open it
        else:
            links += 1
            target = (folder / name).readlink()
            if target.is_absolute():
                folder = Path("/")
            names[:0] = target.parts[1:] if target.is_absolute() else target.parts


def _writable_by_others(status: os.stat_result) -> bool:
    """A group of the user's own, without other members, is nobody else."""
    if status.st_mode & stat.S_IWOTH:
        return True
    if not status.st_mode & stat.S_IWGRP:
        return False
    try:
        me = pwd.getpwuid(os.geteuid())
        return status.st_gid != me.pw_gid or not {me.pw_name}.issuperset(grp.getgrgid(status.st_gid).gr_mem)
    except KeyError:
        return True


def _trusted() -> tuple[int, ...]:
    """Who may own what is on the way. In a user namespace root of the machine has no number, and is shown as nobody."""
    outside = () if _all_users_here() else (_number("/proc/sys/kernel/overflowuid"),)
    return (os.geteuid(), _ROOT, *outside)


def _all_users_here() -> bool:
    try:
        _, _, count = Path("/proc/self/uid_map").read_text().split()[:3]
    except (OSError, ValueError):
        return True
    return int(count) >= 2**32 - 1


def _number(path: str) -> int:
    return int(Path(path).read_text())
