"""Job users: the users as which jobs run (`airunner agent --run-as`), instead of the agent's own user.

The agent itself runs as root and keeps its keys, tokens and spools private (0700). git, the command and all files of a
job belong to the job's user, who cannot read the agent's files. Hooks are the operator's programs and run as root.

With one user, jobs can access each other's files and processes. With several, no two jobs at once have the same user.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.certs.home import Home
from airunner.protocol.errors import OperatorError

UID_MAX: Final = 2**32 - 2  # 2**32 - 1 means "unchanged" to the kernel
PASSABLE: Final = 0o011  # mode bits with which other users can pass through a folder, but not list it
SEPARATOR: Final = ","
RUN_AS_VARIABLE: Final = "AIRUNNER_RUN_AS"


class JobUser(Struct, frozen=True):
    """User as which jobs run, with the groups that a login would have."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids for `LaunchSpec.user`: user id, group id, ids of further groups."""
        return (self.uid, self.gid, *self.groups)

    def environment(self, agent_environ: Mapping[str, str]) -> dict[str, str]:
        """Return the agent's environment with this user's name, and without the agent's ssh agent and shell."""
        left = {name: value for name, value in agent_environ.items() if name not in ("SSH_AUTH_SOCK", "SHELL")}
        return {**left, "USER": self.name, "LOGNAME": self.name}

    def may_pass(self, folder: os.stat_result) -> bool:
        """Return whether this user may pass through the folder with this `stat` result."""
        if folder.st_uid == self.uid:
            return bool(folder.st_mode & stat.S_IXUSR)
        if folder.st_gid in self.groups:
            return bool(folder.st_mode & stat.S_IXGRP)
        return bool(folder.st_mode & stat.S_IXOTH)


class JobUsers:
    """User pool of an agent, perhaps empty. Call `give_back` when the user's processes and files are removed."""

    def __init__(self, users: Sequence[JobUser]) -> None:
        self._shared = users[0] if len(users) == 1 else None
        self._any = bool(users)
        self._free = list(reversed(users))

    def assign(self) -> JobUser | None:
        """Return the only user, or one that no other job has; None: jobs run as the agent's own user."""
        return self._shared or (self._free.pop() if self._any else None)

    def give_back(self, user: JobUser) -> None:
        """Let another job have this user."""
        if user is not self._shared:
            self._free.append(user)


def job_users(named: Sequence[str], slots: int) -> tuple[JobUser, ...]:
    """Look up the users of `--run-as`: names, or `UID[:GID]`, which need no account.

    Raises `OperatorError`: the agent is not root, a user is unusable or named twice, or some slots would lack a user.
    """
    users = tuple(_user(word.strip()) for words in named for word in words.split(SEPARATOR))
    if not users:
        return ()
    if os.geteuid() != 0:
        raise OperatorError("--run-as needs an agent that is root: only root may start processes as another user")
    if len({user.uid for user in users}) < len(users):
        raise OperatorError("--run-as: a user is named twice")
    if 1 < len(users) < slots:
        raise OperatorError(
            f"--run-as names {len(users)} users for {slots} slots: name one user for all, or one for each slot"
        )
    return users


def let_pass(users: Sequence[JobUser], folder: Path, ours: Sequence[Path]) -> None:
    """Let the users reach `folder`: let them pass through the folders `ours`, without listing them.

    Raises `OperatorError`: a user may not pass through another folder on the path.
    """
    for place in ours:
        place.chmod(stat.S_IMODE(place.stat().st_mode) | PASSABLE)
    for user in users:
        for place in (*reversed(folder.resolve().parents), folder.resolve()):
            if not user.may_pass(place.stat()):
                raise OperatorError(
                    f"--run-as {user.name}: this user cannot pass through {place} to its jobs' folders: "
                    f"set AIRUNNER_HOME to a folder such as /var/lib/airunner-agent, or run `chmod a+x {place}`"
                )


def exposed_keys(home: Home) -> str:
    """Describe which keys jobs can read when they run as the agent's own user, and how to prevent that."""
    keys = "its keys, including the one that signs tokens" if home.token_secret.exists() else "its keys"
    return f"jobs run as the agent's user and can read {keys}; to prevent it, run the agent as root with --run-as USER"


def _user(word: str) -> JobUser:
    uid_text, colon, gid_text = word.partition(":")
    account = _account(uid_text)
    if account is None and not uid_text.isdecimal():
        raise OperatorError(f"--run-as {word!r}: there is no such user; name one, or give UID:GID")
    uid = account.pw_uid if account else int(uid_text)
    if colon and not gid_text.isdecimal():
        raise OperatorError(f"--run-as {word!r}: expected USER, UID or UID:GID")
    gid = int(gid_text) if colon else account.pw_gid if account else uid
    if uid == 0 or gid == 0:
        raise OperatorError(f"--run-as {word!r}: jobs as root could read all files of the agent; name another user")
    if max(uid, gid) > UID_MAX:
        raise OperatorError(f"--run-as {word!r}: ids go up to {UID_MAX}")
    groups = tuple(os.getgrouplist(account.pw_name, gid)) if account and not colon else (gid,)
    if 0 in groups:
        raise OperatorError(f"--run-as {word!r}: this user is in root's group; name another user")
    return JobUser(account.pw_name if account else str(uid), uid, gid, groups)


def _account(word: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(word)) if word.isdecimal() and int(word) <= UID_MAX else pwd.getpwnam(word)
    except (KeyError, ValueError):
        return None
