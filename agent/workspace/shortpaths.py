"""Short paths of HOME and TMPDIR, so that a UNIX socket fits in them, whose path has at most 107 bytes.

```
/tmp/ar-<name of the workspace>/                  0700, or 0711 with --run-as
└── w ─► <agent home>/workspaces/<name>/          so HOME is /tmp/ar-<name>/w/home
```

The files themselves stay on the disk of the agent's home, however long its path is. HOME itself is no link, because
`find $HOME` would not follow it. The link is made in the first folder that can be used: systemd's RUNTIME_DIRECTORY,
/tmp, /var/tmp, /dev/shm; without any, the paths are long.

Other users can write in most of these folders. A name is random, so that none can be taken before; a folder that
exists already is never used. In a folder with the sticky bit, only its owner can rename or remove ours. The link is in
a folder of its own, because in /tmp the kernel lets root follow no other user's links (fs.protected_symlinks).
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
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
_TRY_BYTES: Final = 5  # random bytes of a name that is only tried
_RUNTIME: Final = "RUNTIME_DIRECTORY"


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
    for base in bases:
        place = base / f"{PREFIX}{root.name}"
        link = place / LINK
        if len(os.fsencode(link / _LONGEST)) > PATH_BYTES_MAX:
            continue
        with suppress(OSError):
            if _usable(base, user):
                place.mkdir(_OURS_ONLY)
                try:
                    link.symlink_to(root)
                    place.chmod(_OURS_ONLY if user is None else _OURS_ONLY | PASSABLE)
                except OSError:
                    remove_link(link)
                    raise
                return link
    return None


def remove_link(link: Path) -> None:
    """Remove a link that no job has used yet, and its folder."""
    with suppress(OSError):
        link.unlink(missing_ok=True)
        link.parent.rmdir()


def folders_of(name: str, bases: Sequence[Path]) -> Iterator[Path]:
    """List the folders that `make_link` has made for this name; another user's folder is none."""
    for base in bases:
        place = base / f"{PREFIX}{name}"
        with suppress(OSError):
            status = place.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                yield place


def _usable(base: Path, user: JobUser | None) -> bool:
    """Whether no other user can replace our folder in `base`, and `user` can reach it. Raises `OSError`."""
    status = base.stat()
    safe = status.st_mode & stat.S_ISVTX or not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    owned = status.st_uid in (0, os.geteuid())
    return bool(safe) and owned and (user is None or user.may_pass(status))
