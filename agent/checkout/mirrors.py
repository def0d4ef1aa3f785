"""Mirrors: the objects that this agent has of each repository, so that no job's checkout transfers them again.

```
<agent home>/mirrors/<hash of the URL>/     a bare repository; made by the first job, grown by those after it
<workspace>/checkout/.git                   the job's own clone, which borrows the mirror's objects
```

- A mirror belongs to one URL with its credentials: a job that may not read a repository borrows nothing of it. Each
  checkout asks the remote itself, so a right that was withdrawn is withdrawn here.
- It is made under a lock, in a folder that takes its place when it is whole. Objects that later checkouts bring are
  taken over from their clones, before their jobs run.
- Nothing in it is removed while an attempt borrows from it. A mirror in which git finds a fault is removed when its
  last borrower is gone, and so are the least recently used ones while all together exceed the bound.
- Its configuration is written again before each use. A job runs as the same user and could spoil what it borrows from;
  jobs that must not trust each other belong to agents of different users.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

import anyio

from airunner.agent.checkout.git import CheckoutFailed, Git, scarce_in, spoken
from airunner.agent.launcher.refusal import refusal_in
from airunner.agent.workspace.workspace import Leftover, Offload, remove_workspace
from airunner.certs.secretfile import make_folder
from airunner.protocol.errors import OperatorError

FOLDER: Final = "mirrors"
MIRRORS_MAX: Final = 256  # that no checkout borrows from
NAME_BYTES: Final = 16
PACKS_MAX: Final = 32  # then they are joined: git looks into each of them for each object
_CONFIG: Final = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
_NEW: Final = ".new-"
_TAKEN_OVER: Final = (
    "HEAD",  # perhaps a commit that no branch or tag reaches; its objects stay, as all do
    *("+refs/remotes/origin/*:refs/heads/*", "^refs/remotes/origin/HEAD", "+refs/tags/*:refs/tags/*"),
)


class Mirror:
    """Mirror of one repository, as a checkout borrows from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = anyio.Lock()
        self.borrowers = 0
        self.faulty = False
        self.grown = False

    @property
    def there(self) -> bool:
        """Whether there are objects to borrow."""
        return not self.faulty and os.access(self.folder / "HEAD", os.R_OK)

    def settle(self) -> None:
        """Restore its configuration, whatever a job has done to that, and mark it as used now."""
        fresh = self.folder / f"config{_NEW}"
        try:
            fresh.touch(0o600)  # whatever the umask
            fresh.write_text(_CONFIG)
            fresh.replace(self.folder / "config")
            os.utime(self.folder)
        except OSError:
            self.faulty = True

    async def make(self, git: Git) -> None:
        """Clone the mirror, where that has not been done. Raises as `Git.need`."""
        if not self.there and self.lock.locked():
            git.tell("waiting for the mirror that another job makes")
        async with self.lock:
            self.faulty |= not self.there and self.folder.exists()  # checkouts may borrow from its remains
            if self.there or self.faulty:
                return
            fresh = self.folder.with_name(f"{_NEW}{secrets.token_hex(NAME_BYTES)}")
            try:
                options = ("--bare", "--progress", "--no-local", "--template=")
                await git.need("clone", *options, "--", git.address, str(fresh))
                fresh.rename(self.folder)
            finally:
                if fresh.exists():
                    remove_workspace(fresh)
            self.grown = True

    async def take_over(self, git: Git, checkout: Path) -> None:
        """Keep the objects of a fresh checkout; where that fails, the next checkout transfers them again."""
        if not _packs_in(checkout / ".git"):
            return
        async with self.lock:
            self.grown = True
            ours = git.at(self.folder, {**git.environment, "GIT_ALLOW_PROTOCOL": "file"})
            options = ("--quiet", "--prune", "--no-write-fetch-head")
            taken = await ours.run("fetch", *options, "--", str(checkout), *_TAKEN_OVER)
            self.faulty |= not taken.succeeded and scarce_in(spoken(taken.stderr)) is None
            if len(_packs_in(self.folder)) > PACKS_MAX:
                await ours.run("repack", "--quiet", "--geometric=2", "-d")


class Mirrors:
    """Mirrors of the agent with this home; those that no checkout borrows from take up to `bytes_max` together."""

    def __init__(self, agent_home: Path, offload: Offload, bytes_max: int) -> None:
        self._folder = agent_home / FOLDER
        self._offload = offload
        self._bytes_max = bytes_max
        self._known: dict[str, Mirror] = {}

    @asynccontextmanager
    async def borrowed(self, repository: str) -> AsyncGenerator[Mirror]:
        """Open a block in which the mirror of this URL, which may have to be made yet, is not removed.

        Raises `CheckoutFailed` where there can be none.
        """
        try:
            make_folder(self._folder)
        except OperatorError as error:
            if isinstance(error.__cause__, OSError) and (refusal := refusal_in(error.__cause__)):
                raise refusal from error
            raise CheckoutFailed(error.message) from error
        name = blake2b(repository.encode(errors="surrogateescape"), digest_size=NAME_BYTES).hexdigest()
        mirror = self._known.setdefault(name, Mirror(self._folder.absolute() / name))
        mirror.borrowers += 1
        try:
            yield mirror
        finally:
            mirror.borrowers -= 1
            if not mirror.borrowers:
                del self._known[name]
                gone = self._put_away(mirror) if mirror.faulty or mirror.grown else []
                if gone:
                    with anyio.CancelScope(shield=True):
                        await self._offload(lambda: [left for folder in gone for left in remove_workspace(folder)])

    def _put_away(self, last: Mirror) -> list[Path]:
        """Rename faulty and excess mirrors, so that no checkout finds them, and return the folders to remove.

        It does not await, so that no checkout begins to borrow meanwhile.
        """
        borrowed = {mirror.folder for mirror in self._known.values()}
        gone: list[Path] = []
        total = 0
        with suppress(OSError):  # a job has changed files here; the next checkout that ends tries again
            here = [folder for folder in self._folder.absolute().iterdir() if not folder.name.startswith(_NEW)]
            idle = sorted((folder for folder in here if folder not in borrowed), key=_used, reverse=True)
            for number, folder in enumerate(idle):
                total += _bytes_in(folder)
                if total > self._bytes_max or number >= MIRRORS_MAX or (last.faulty and folder == last.folder):
                    away = folder.with_name(f"{_NEW}{secrets.token_hex(NAME_BYTES)}")
                    folder.rename(away)
                    gone.append(away)
        return gone


def remove_unfinished(agent_home: Path) -> list[Leftover]:
    """Remove mirrors that a killed agent had begun to clone or to remove. The home must be locked."""
    return [left for folder in (agent_home / FOLDER).glob(f"{_NEW}*") for left in remove_workspace(folder)]


def _used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _packs_in(repository: Path) -> list[Path]:
    return list(repository.glob("objects/pack/*.pack"))


def _bytes_in(mirror: Path) -> int:
    """Return the bytes of a mirror's packs, which are nearly all of it."""
    return sum(pack.stat().st_size for pack in _packs_in(mirror))
