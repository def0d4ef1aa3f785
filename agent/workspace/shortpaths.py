"""Short paths of HOME and TMPDIR, so that a UNIX socket fits in them, whose path has at most 107 bytes.

```
/tmp/ar-<name of the workspace>/                  0700, or 0711 with --run-as
└── w ─► <agent home>/workspaces/<name>/          so HOME is /tmp/ar-<name>/w/home
```

The files themselves stay on the disk of the agent's home, however long its path is. HOME itself is no link, because
`find $HOME` would not follow it. The link is made in the first folder that can be used: systemd's RUNTIME_DIRECTORY,
/tmp, /var/tmp, /dev/shm; without any, the paths are long.

Other users can write in most of these folders. A name is random, so that none can be taken before; a folder that
exists already is not used. In a folder with the sticky bit, only its owner can rename or remove ours. The link is in
a folder of its own, because in /tmp the kernel lets root follow no other user's links (fs.protected_symlinks).

A workspace for a job with caches has a name that other agents give too (see `caches.shelf`), and its link is *claimed*:
in the first usable folder, so that the path is the same on all machines, or not at all. What another agent left there
is used if it is our own user's, and its link leads to nothing that exists. Who makes or removes the link holds a lock
on its folder meanwhile, so that of several agents one has it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from airunner.agent.workspace.jobuser import PASSABLE, JobUser

PATH_BYTES_MAX: Final = 40  # of HOME and TMPDIR: ssh adds 66 to HOME for a ControlPath with %C, which makes 106
PREFIX: Final = "ar-"
LINK: Final = "w"
BASES: Final = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - see above how they are used
NO_BASE: Final = (
    "note: neither /tmp nor /var/tmp nor /dev/shm can be used for short paths: HOME and TMPDIR of jobs may be too long "
    "for UNIX sockets"
)

_LONGEST: Final = "home"
_OURS_ONLY: Final = 0o700
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRY_BYTES: Final = 5  # random bytes of a name that is only tried
_RUNTIME: Final = "RUNTIME_DIRECTORY"


class PathTaken(Exception):
    """Short path that is taken: by another agent's workspace, or by what another user or a job has put there."""


def bases_of(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """List the folders for links, the best first; `environ` is the agent's environment."""
    runtime = environ.get(_RUNTIME, "").partition(":")[0]
    return (Path(runtime), *BASES) if runtime.startswith("/") else BASES


def report_unusable(bases: Sequence[Path], users: Sequence[JobUser], report: Callable[[str], None]) -> None:
    """Make a link as a try, and report if none of the folders can be used."""
    tried = make_link(Path(secrets.token_hex(_TRY_BYTES)), users[0] if users else None, bases)
    if tried is None:
        report(NO_BASE)
    else:
        remove_link(tried)


def make_link(root: Path, user: JobUser | None, bases: Sequence[Path]) -> Path | None:
    """Make a link to the workspace `root`, which `user` can follow, and return it; None: there is no place for it."""
    for link in _links(root, user, bases):
        with suppress(OSError):
            link.parent.mkdir(_OURS_ONLY)
            try:
                link.symlink_to(root)
                link.parent.chmod(_mode(user))
            except OSError:
                remove_link(link)
                raise
            return link
    return None


def claim_link(root: Path, user: JobUser | None, bases: Sequence[Path]) -> Path | None:
    """Make a link to the workspace `root`, whose name other agents give to theirs; None: there is no place for links.

    Raises `PathTaken`.
    """
    link = next(_links(root, user, bases), None)
    if link is None:
        return None
    try:
        with suppress(FileExistsError):
            link.parent.mkdir(_OURS_ONLY)
        with _locked(link.parent) as folder:
            if _leads(folder):
                raise PathTaken
            with suppress(FileNotFoundError):
                os.unlink(LINK, dir_fd=folder)
            os.symlink(root, LINK, dir_fd=folder)
            os.fchmod(folder, _mode(user))
    except OSError as error:
        raise PathTaken from error
    return link


@contextmanager
def _locked(place: Path) -> Generator[int]:
    """Lock the folder of a link, and yield its descriptor. Raises `OSError`: it is another user's, or in use."""
    found = os.open(place, _FOLDER | os.O_PATH)
    try:
        status = os.fstat(found)
        if status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        if status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            Path(f"/proc/self/fd/{found}").chmod(_OURS_ONLY)
        folder = os.open(".", _FOLDER, dir_fd=found)
    finally:
        os.close(found)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(status, place.lstat()):  # its agent has removed it before this lock
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        yield folder
    finally:
        os.close(folder)


def _leads(folder: int) -> bool:
    """Return whether the link in a folder leads to something. Raises `OSError`: nobody knows."""
    try:
        os.stat(LINK, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _is_anothers(folder: int, root: Path) -> bool:
    """Return whether the link in a folder leads to a workspace of the same name as `root`, of another agent."""
    try:
        target = Path(os.readlink(LINK, dir_fd=folder))
    except OSError:
        return False
    return target.name == root.name and target.is_dir() and target.resolve() != root.resolve()


def remove_link(link: Path) -> None:
    """Remove a link that no job has used yet, and its folder."""
    with suppress(OSError):
        link.unlink(missing_ok=True)
        link.parent.rmdir()


def folders_of(root: Path, bases: Sequence[Path]) -> Iterator[Path]:
    """List the folders of links to the workspace `root`, each locked until the next; another's folder is none."""
    for base in bases:
        place = base / f"{PREFIX}{root.name}"
        with suppress(OSError), _locked(place) as folder:
            if not _is_anothers(folder, root):
                yield place


def _links(root: Path, user: JobUser | None, bases: Sequence[Path]) -> Iterator[Path]:
    """List where a link to `root` may be made, the best first."""
    for base in bases:
        link = base / f"{PREFIX}{root.name}" / LINK
        with suppress(OSError):
            if len(os.fsencode(link / _LONGEST)) <= PATH_BYTES_MAX and _usable(base, user):
                yield link


def _mode(user: JobUser | None) -> int:
    """Return the mode of a link's folder."""
    return _OURS_ONLY if user is None else _OURS_ONLY | PASSABLE


def _usable(base: Path, user: JobUser | None) -> bool:
    """Whether no other user can replace our folder in `base`, and `user` can reach it. Raises `OSError`."""
    status = base.stat()
    safe = status.st_mode & stat.S_ISVTX or not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    owned = status.st_uid in (0, os.geteuid())
    return bool(safe) and owned and (user is None or user.may_pass(status))
