"""Job users: the users that jobs run as (`airunner agent --run-as`), instead of the agent's own.

An agent that is root keeps its keys, tokens and spools for itself (0700), and runs each job as a user who may read none
of it: the checkout, its git, the command and all files of the job are that user's. Hooks are the operator's, and stay
root's.

With one user all jobs share it, and may see each other. With several, each slot's job has one that no other job has.
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

UID_MAX: Final = 2**32 - 2  # the greatest number means "unchanged" to the kernel
PASSABLE: Final = 0o011  # a folder with this mode can be passed through, and not listed
SEPARATOR: Final = ","
RUN_AS_VARIABLE: Final = "AIRUNNER_RUN_AS"


class JobUser(Struct, frozen=True):
    """User that jobs run as, with the groups of a login."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of this user and its groups, as `LaunchSpec` has them."""
        return (self.uid, self.gid, *self.groups)

    def environment(self, agent_environ: Mapping[str, str]) -> dict[str, str]:
        """Return the agent's environment as far as it applies to this user, without the agent's ssh agent."""
        left = {name: value for name, value in agent_environ.items() if name not in ("SSH_AUTH_SOCK", "SHELL")}
        return {**left, "USER": self.name, "LOGNAME": self.name}

    def may_pass(self, folder: os.stat_result) -> bool:
        """Return whether this user may pass through a folder."""
        if folder.st_uid == self.uid:
            return bool(folder.st_mode & stat.S_IXUSR)
        if folder.st_gid in self.groups:
            return bool(folder.st_mode & stat.S_IXGRP)
        return bool(folder.st_mode & stat.S_IXOTH)


class JobUsers:
    """User pool of an agent, perhaps empty: `assign` a user to a job, `give_back` when nothing of the job is left."""

    def __init__(self, users: Sequence[JobUser]) -> None:
        self._shared = users[0] if len(users) == 1 else None
        self._any = bool(users)
        self._free = list(reversed(users))

    def assign(self) -> JobUser | None:
        """Return a user, where there are several one that no other job has; None: jobs run as the agent's own user."""
        return self._shared or (self._free.pop() if self._any else None)

    def give_back(self, user: JobUser) -> None:
        """Let another job have this user."""
        if user is not self._shared:
            self._free.append(user)


def job_users(named: Sequence[str], slots: int) -> tuple[JobUser, ...]:
    """Look up the users of `--run-as`, or `UID[:GID]` for those without an account.

    Raises `OperatorError`: we are not root, a user is root or unknown, or there are fewer than slots.
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
            f"--run-as names {len(users)} users for {slots} slots: name one for all of them, or one for each"
        )
    return users


def let_pass(users: Sequence[JobUser], folder: Path, ours: Sequence[Path]) -> None:
    """Let the users reach `folder`, by making the folders `ours` passable; none of them can be listed for that.

    Raises `OperatorError` where a folder above is closed to a user.
    """
    for place in ours:
        place.chmod(stat.S_IMODE(place.stat().st_mode) | PASSABLE)
    for user in users:
        for place in (*reversed(folder.resolve().parents), folder.resolve()):
            if not user.may_pass(place.stat()):
                raise OperatorError(
                    f"--run-as {user.name}: that user does not get through {place} to its jobs' folders: "
                    f"set AIRUNNER_HOME to a folder elsewhere, as /var/lib/airunner-agent, or run `chmod a+x {place}`"
                )


def exposed_keys(home: Home) -> str:
    """Describe which keys jobs of the agent's own user can read, and how to change that."""
    keys = "its keys, the one that signs tokens among them" if home.token_secret.exists() else "its keys"
    return f"jobs run as the agent's own user and can read {keys}; start it as root with --run-as USER to part them"


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
        raise OperatorError(f"--run-as {word!r}: jobs as root could read all that is the agent's; name another user")
    if max(uid, gid) > UID_MAX:
        raise OperatorError(f"--run-as {word!r}: ids go up to {UID_MAX}")
    groups = tuple(os.getgrouplist(account.pw_name, gid)) if account and not colon else (gid,)
    if 0 in groups:
        raise OperatorError(f"--run-as {word!r}: that user is in root's group; name another")
    return JobUser(account.pw_name if account else str(uid), uid, gid, groups)


def _account(word: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(word)) if word.isdecimal() and int(word) <= UID_MAX else pwd.getpwnam(word)
    except (KeyError, ValueError):
        return None
