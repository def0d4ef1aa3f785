"""Mirrors: local copies of repositories, so that checkouts do not transfer the same objects again.

```
<agent home>/mirrors/<hash of the URL>/     a bare repository; the first job clones it, later jobs add objects to it
<workspace>/checkout/.git                   the job's own clone, which borrows the mirror's objects
```

- Each URL, credentials included, has its own mirror, so a job borrows only from a repository that it may read. Each
  checkout still asks the remote, so it fails when the access right was withdrawn.
- A mirror is cloned under a lock, into a temporary folder that is renamed when it is complete. Objects that a later
  checkout transfers are copied from its clone to the mirror before the job runs.
- A checkout that must work where the mirror is not visible, as in a container, gets a copy of the objects.
- No object of a mirror is removed while an attempt borrows from it. When the last borrower of a damaged mirror
  has ended, the mirror is removed. Then, and when that of a grown mirror has ended, mirrors without a borrower are
  removed, least recently used first, until those that remain are within the limits of size and number.
- The configuration of a mirror is written again before each use, because jobs run as the same user and could change
  it. Jobs that must not trust each other need agents of different users.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final

import anyio

from airunner.agent.checkout.git import CheckoutFailed, Git, message_lines, scarce_in
from airunner.agent.checkout.peek import read_beginning
from airunner.agent.launcher.refusal import refusal_in
from airunner.agent.workspace.workspace import Leftover, Offload, remove_workspace
from airunner.certs.secretfile import make_folder
from airunner.protocol.errors import OperatorError

FOLDER: Final = "mirrors"
MIRRORS_MAX: Final = 256  # number of mirrors without a borrower that are retained
NAME_BYTES: Final = 16  # bytes of the hash of a URL, and of a temporary name
PACKS_MAX: Final = 32  # pack files of a mirror; more are joined, because git searches all of them for each object
CONFIG_BYTES_MAX: Final = 65_536  # size of a mirror's configuration; git writes about 100 bytes
_CONFIG: Final = "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n"
_FORMAT: Final = re.compile(r"^\s*(?:objectformat = sha256|refstorage = reftable)$", re.MULTILINE)
_READ_ONLY: Final = 0o444  # as git makes the files of objects
_SHALLOW: Final = "source repository is shallow"
_OBJECTS: Final = re.compile(r"pack/pack-\w+\.(pack|idx|rev)|[0-9a-f]{2}/[0-9a-f]+")  # files with objects
_NEW: Final = ".new-"  # starts the names of mirrors that are unfinished or being removed
_COPIED_REFS: Final = (
    "HEAD",  # it may be a commit outside of all branches and tags; its objects are stored too
    *("+refs/remotes/origin/*:refs/heads/*", "^refs/remotes/origin/HEAD", "+refs/tags/*:refs/tags/*"),
)


class Mirror:
    """Mirror of one repository URL. `faulty`: to be removed after its last borrower; `grown`: it has new objects.

    `copied`: each checkout gets a copy of the objects.
    """

    def __init__(self, folder: Path, offload: Offload, *, copied: bool = False) -> None:
        self.folder = folder
        self.copied = copied
        self._offload = offload
        self.lock = anyio.Lock()
        self.borrowers = 0
        self.faulty = False
        self.grown = False

    @property
    def usable(self) -> bool:
        """Whether a checkout can borrow objects from this mirror; git borrows from no shallow one."""
        return not self.faulty and os.access(self.folder / "HEAD", os.R_OK) and not (self.folder / "shallow").exists()

    def restore_config(self) -> None:
        """Restore the mirror's git configuration, which a job could have changed, and set the time of its last use.

        Only the formats of its objects and references are kept: a wrong format makes git fail, and runs nothing.
        """
        fresh = self.folder / f"config{_NEW}"
        try:
            before = read_beginning(self.folder / "config", CONFIG_BYTES_MAX)
            formats = _FORMAT.findall(before.decode(errors="replace"))
            fresh.touch(0o600)
            fresh.write_text(_CONFIG + "".join(f"{line}\n" for line in formats))
            fresh.replace(self.folder / "config")
            os.utime(self.folder)
        except OSError:
            self.faulty = True

    async def make(self, git: Git) -> None:
        """Clone the mirror, unless it exists or the remote is shallow; an unusable one becomes `faulty`.

        Raises as `Git.must_run`.
        """
        if not self.usable and self.lock.locked():
            git.tell("waiting for the mirror that another job makes")
        async with self.lock:
            self.faulty |= not self.usable and self.folder.exists()  # not removed now: a checkout may borrow from it
            if self.usable or self.faulty:
                return
            fresh = self.folder.with_name(f"{_NEW}{secrets.token_hex(NAME_BYTES)}")
            try:
                options = ("--config=clone.rejectShallow=true", "--bare", "--progress", "--no-local", "--template=")
                await git.must_run("clone", *options, "--", git.address, str(fresh))
                fresh.rename(self.folder)
            except CheckoutFailed as failed:
                if _SHALLOW not in failed.message:
                    raise
                git.tell("the repository is shallow, which allows no mirror: checking out without one")
                return
            finally:
                if fresh.exists():
                    remove_workspace(fresh)
            self.grown = True

    async def add_objects(self, git: Git, checkout: Path) -> None:
        """Add the objects of a new checkout. If this fails, the next checkout transfers them again."""
        if not _packs_in(checkout / ".git"):
            return
        async with self.lock:
            self.grown = True
            ours = git.at(self.folder, {**git.environment, "GIT_ALLOW_PROTOCOL": "file"})
            options = ("--quiet", "--prune", "--no-write-fetch-head")
            fetched = await ours.run("fetch", *options, "--", str(checkout), *_COPIED_REFS)
            self.faulty |= not fetched.succeeded and scarce_in(message_lines(fetched.stderr)) is None
            if len(_packs_in(self.folder)) > PACKS_MAX:
                await ours.run("repack", "--quiet", "--geometric=2", "-d")

    async def copy_objects(self, checkout: Path) -> None:
        """Copy the objects into a checkout that borrows them. Raises `CheckoutFailed`, `MachineRefused`.

        A hard link would be faster, but a job that is root in a container could change the mirror through it.
        """
        objects, copies = self.folder / "objects", checkout / ".git" / "objects"
        try:
            async with self.lock:  # a repack would remove packs
                for file in sorted(objects.glob("*/*")):
                    if _OBJECTS.fullmatch(str(file.relative_to(objects))):
                        await self._offload(partial(_copy, file, copies / file.relative_to(objects)))
            (copies / "info" / "alternates").unlink(missing_ok=True)
        except OSError as error:
            failed = CheckoutFailed(f"the mirror's objects cannot be copied to the checkout: {error.strerror}")
            raise (refusal_in(error) or failed) from error


class Mirrors:
    """Mirrors in one agent home; those without a borrower take up to `bytes_max` of disk together.

    `copied`: every checkout gets a copy of its mirror's objects, instead of borrowing them.
    """

    def __init__(self, agent_home: Path, offload: Offload, bytes_max: int, *, copied: bool = False) -> None:
        self._copied = copied
        self._folder = agent_home / FOLDER
        self._offload = offload
        self._bytes_max = bytes_max
        self._known: dict[str, Mirror] = {}

    @asynccontextmanager
    async def borrowed(self, repository: str) -> AsyncGenerator[Mirror]:
        """Open a block in which the mirror of this URL is not removed; it may not have been cloned yet.

        Raises `CheckoutFailed`: the folder of mirrors cannot be used; `MachineRefused`: the disk is full, for example.
        """
        try:
            make_folder(self._folder)
        except OperatorError as error:
            if isinstance(error.__cause__, OSError) and (refusal := refusal_in(error.__cause__)):
                raise refusal from error
            raise CheckoutFailed(error.message) from error
        name = blake2b(repository.encode(errors="surrogateescape"), digest_size=NAME_BYTES).hexdigest()
        mirror = self._known.setdefault(
            name, Mirror(self._folder.absolute() / name, self._offload, copied=self._copied)
        )
        mirror.borrowers += 1
        try:
            yield mirror
        finally:
            mirror.borrowers -= 1
            if not mirror.borrowers:
                del self._known[name]
                gone = self._rename_unwanted(mirror) if mirror.faulty or mirror.grown else []
                if gone:
                    with anyio.CancelScope(shield=True):
                        await self._offload(lambda: [left for folder in gone for left in remove_workspace(folder)])

    def _rename_unwanted(self, last: Mirror) -> list[Path]:
        """Rename `last`, if damaged, and excess mirrors, so that no checkout finds them; return the folders to remove.

        This does not await, so no checkout can start to borrow during it.
        """
        borrowed = {mirror.folder for mirror in self._known.values()}
        gone: list[Path] = []
        total = 0
        with suppress(OSError):  # a job has changed files here: the next checkout that ends tries again
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
    """Remove mirrors that a killed agent was cloning or removing. The home must be locked."""
    return [left for folder in (agent_home / FOLDER).glob(f"{_NEW}*") for left in remove_workspace(folder)]


def _copy(file: Path, to: Path) -> list[Leftover]:
    to.parent.mkdir(exist_ok=True)
    shutil.copyfile(file, to)
    to.chmod(_READ_ONLY)
    return []


def _used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _packs_in(repository: Path) -> list[Path]:
    return list(repository.glob("objects/pack/*.pack"))


def _bytes_in(mirror: Path) -> int:
    """Return the bytes of a mirror's pack files, which are nearly all of its size."""
    return sum(pack.stat().st_size for pack in _packs_in(mirror))
