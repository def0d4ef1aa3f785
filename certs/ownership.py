"""Folder ownership: refuses to work in a folder in which other users could replace our files.

A key is as safe as the folders above it: a user who may write in one of them can rename the key and put another file
in its place. So our folders, and every folder on the path to them, with links followed, must belong to us or to root
and be writable by no other user, as `sshd` demands with StrictModes. As in Debian's `sshd`, a folder *on the path* may
be writable by a group that is the user's own and has no other member. A folder with the sticky bit, such as /tmp, may
be on the path if the next component is ours or root's, or missing: others can neither rename nor remove it.

Broker, relay, agent, client and `airunner certs` make this check when they start. A POSIX access control list that lets
others write shows in the mode of the folder, as its mask.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Final

from airunner.certs.home import Home
from airunner.protocol.errors import OperatorError

OTHERS_READ_OR_WRITE: Final = 0o077  # mode bits that a key's file or folder must not have
OTHERS_WRITE: Final = 0o022  # mode bits that no file and folder of ours may have
LINKS_MAX: Final = 40  # symbolic links on a path, as in the kernel
_ROOT: Final = 0


def own_home(environ: Mapping[str, str]) -> Home:
    """Return the home folder to work in: `$AIRUNNER_HOME`, or `~/.airunner`. It need not exist yet.

    Raises `OperatorError`: it is not a folder, or other users could change files in it.
    """
    home = Home.from_environment(environ)
    if reason := home_fault(home):
        raise OperatorError(reason)
    refuse_unsafe(home.root, home.certs, home.clients, home.queue_keys)
    return home


def home_fault(home: Home) -> str:
    """Return why the home cannot be a folder, or ""; it need not exist yet."""
    try:
        fault = "" if stat.S_ISDIR(home.root.stat().st_mode) else "it is not a folder"
    except FileNotFoundError:
        fault = ""
    except OSError as error:  # a loop of links, a name that is too long, a file on the way
        fault = str(error.strerror)
    return fault and f"{home.root} cannot be the home folder: {fault}; set AIRUNNER_HOME to a folder of your own"


def refuse_unsafe(*folders: Path) -> None:
    """Refuse folders that other users may write to; the folders need not exist yet.

    Raises `OperatorError`, which says how to fix the folder.
    """
    refuse_foreign_owner(*folders)
    for folder in folders:
        try:
            reason = unsafe_reason(folder)
        except FileNotFoundError:
            reason = unsafe_parent_reason(folder)
        except OSError:
            continue  # the code that opens the folder reports the error
        if reason:
            raise OperatorError(reason)


def refuse_foreign_owner(*folders: Path) -> None:
    """Refuse folders of another user when we are root: their owner could not use the files that root makes there.

    Raises `OperatorError` when one of them exists and belongs to another user.
    """
    if os.geteuid() != _ROOT:
        return  # another user gets an error from the attempt to write
    for folder in folders:
        try:
            owner = folder.stat().st_uid
        except OSError:
            continue  # it does not exist, or nothing can be made in it
        if owner != _ROOT:
            raise OperatorError(f"{folder} belongs to {user_name(owner)}: {as_user(owner)}")


def unsafe_reason(path: Path, forbidden: int = OTHERS_WRITE) -> str:
    """Return why other users could have changed or replaced the file or folder at `path`, or "". Raises `OSError`."""
    status = path.stat()
    reason = unsafe_status_reason(status, path, str(path), forbidden, "make it your own")
    return reason or unsafe_parent_reason(path)


def unsafe_status_reason(status: os.stat_result, path: Path, called: str, forbidden: int, if_anothers: str) -> str:
    """Return why `path` with this `stat` result is unsafe, or "". `called` names it; `forbidden` are mode bits."""
    if status.st_uid not in (os.geteuid(), _ROOT):
        return f"{called} belongs to {user_name(status.st_uid)}, who could change it: {if_anothers}"
    if status.st_mode & forbidden:
        mode = stat.S_IMODE(status.st_mode)
        return f"{called} is open to others (mode {mode:04o}): {_closing(status, path, forbidden)}"
    return ""


def _closing(status: os.stat_result, path: Path, forbidden: int) -> str:
    """Return advice to close `path` to others, but not for folders that are everybody's, such as /tmp."""
    if status.st_mode & stat.S_ISVTX:
        return "all users share it, so use a folder of your own"
    mode = "600" if stat.S_ISREG(status.st_mode) else "go-rwx"
    return f"run `chmod {'go-w' if forbidden == OTHERS_WRITE else mode} {quote(str(path))}`"


def unsafe_parent_reason(path: Path) -> str:
    """Return why other users could replace `path`, or as much of it as exists, or "". Raises `OSError`."""
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
            f"run `chmod go-w {quote(str(folder))}`, or set AIRUNNER_HOME to a folder elsewhere"
        )
    return ""


def user_name(uid: int) -> str:
    """Return the user's name, or a text with the user id if the user has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def as_user(uid: int) -> str:
    """Return advice to run the same command as that user."""
    name = user_name(uid)
    argument = name if " " not in name else f"'#{uid}'"
    return f"run this as {name} (`sudo -u {argument} ...`)"


def _steps(path: Path) -> Iterator[tuple[Path, os.stat_result, os.stat_result | None]]:
    """Yield each folder on the path to `path` and the `stat` of the next component, links followed (None: missing)."""
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
            return  # the kernel refuses to open it
        else:
            links += 1
            target = (folder / name).readlink()
            if target.is_absolute():
                folder = Path("/")
            names[:0] = target.parts[1:] if target.is_absolute() else target.parts


def _writable_by_others(status: os.stat_result) -> bool:
    """Return whether other users may write to a folder; access for our own group counts if it has other members."""
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
    """Return the user ids that may own folders on the path.

    In a user namespace, root of the machine has no id of its own and appears as the overflow user (nobody).
    """
    ours = (os.geteuid(), _ROOT)
    try:
        _, _, users_here = Path("/proc/self/uid_map").read_text().split()[:3]
    except (OSError, ValueError):
        return ours
    return ours if int(users_here) >= 2**32 - 1 else (*ours, int(Path("/proc/sys/kernel/overflowuid").read_text()))
