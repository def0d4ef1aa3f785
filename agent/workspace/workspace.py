"""Workspace of an attempt: a new folder, 0700, in the agent's home, and its complete removal.

```
<agent home>/workspaces/<random>/
├── checkout/     the repository, or empty
├── home/         HOME, which the job reaches by a short path (`shortpaths.py`)
├── tmp/          TMPDIR, likewise
├── secrets/      only if the job asks for secrets as files
├── socket        through which the job reaches its agent (`listening.py`)
├── stdin         only until the command starts, if the job has a standard input
└── gitconfig     only with --run-as: lets git read local repositories that belong to other users
```

With --run-as the workspace's root folder belongs to the agent (0711), so that the job cannot replace what is in it.

The removal copes with everything that a job can make: read-only folders, links to other places, trees deeper than the
longest path or the limit of open files. So it opens each folder by its name alone, follows no link, and does not
recurse: it moves inner folders up into the root, and empties them there. It reports what it cannot remove (another
user's folder, a mount, an immutable file).

Remove a workspace only when no process of the attempt is left. Linux only, because of /proc/self/fd.
"""

from __future__ import annotations

import os
import secrets
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, TypeVar

from msgspec import Struct

from airunner.agent.launcher.refusal import MachineRefused, refusal_in, scarce_at_home
from airunner.agent.workspace.jobuser import PASSABLE, JobUser
from airunner.agent.workspace.listening import NAME
from airunner.agent.workspace.shortpaths import PathTaken, claim_link, folders_of, make_link
from airunner.certs.secretfile import make_folder
from airunner.protocol.errors import OperatorError

WORKSPACES_FOLDER: Final = "workspaces"  # in an agent's home
FOLDER_MODE: Final = 0o700
NAME_BYTES: Final = 5  # random bytes of a workspace's name: unique, and not to be guessed by other users
LEFTOVERS_MAX: Final = 100  # paths reported for one workspace; more would only repeat the reason
PATH_CHARS_MAX: Final = 4_096  # length of a reported path: the kernel's own limit (PATH_MAX)

_ANY_OWNER: Final = "[safe]\n\tdirectory = *\n"
_READABLE: Final = 0o644
_PRIVATE: Final = 0o600
_FOLDER: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Workspace:
    """Workspace of one attempt: the absolute paths drawn above. `folders` are made with it, and belong to `user`.

    `link` leads to `root`, if there is a short path to it. `listening` listens at `socket`, if anything does.
    """

    def __init__(self, root: Path, user: JobUser | None = None, link: Path | None = None) -> None:
        self.root = root
        self.user = user
        self.link = link
        self.checkout = root / "checkout"
        self.home = (link or root) / "home"
        self.temporary = (link or root) / "tmp"
        self.secrets = root / "secrets"
        self.stdin = root / "stdin"
        self.git_settings = root / "gitconfig"
        self.listening: socket.socket | None = None
        self.socket = (link or root) / NAME
        self.folders = (self.checkout, root / "home", root / "tmp")


class WorkspaceFailed(MachineRefused):
    """Failure to make a workspace: the machine lacks a resource; the message says why."""

    def __init__(self, doing: str, error: OSError) -> None:
        super().__init__(scarce_at_home(error.errno), f"{doing}: {error.strerror}")


class Leftover(Struct, frozen=True):
    """Leftover: a path that could not be removed, and the system's reason."""

    path: str
    why: str

    @classmethod
    def of(cls, path: str, error: OSError) -> Leftover:
        """Make the leftover for `path`, which may be invalid UTF-8, and its error."""
        return cls(os.fsencode(path).decode(errors="replace"), error.strerror or type(error).__name__)


T = TypeVar("T")


class Offload(Protocol):
    """Runs a slow call without blocking the event loop: in production in a thread."""

    async def __call__(self, call: Callable[[], T], /) -> T:
        """Run `call`, and return its result."""
        ...


def make_workspace(
    agent_home: Path, user: JobUser | None = None, bases: Sequence[Path] = (), name: str | None = None
) -> Workspace:
    """Make a new workspace, of the name `name` unless there is one of it, or its short path is taken.

    It needs no thread: making five folders takes less time than waking one.
    The link of its short paths is made in one of `bases`, see `shortpaths.py`.

    Raises `OperatorError`: the folder of all workspaces cannot be used; `WorkspaceFailed`: the machine refused, and
    nothing of this workspace is left.
    """
    folder = agent_home / WORKSPACES_FOLDER
    if name is not None and not os.path.lexists(folder / name):
        root = _made(folder, name, user).root
        try:
            return Workspace(root, user, claim_link(root, user, bases))
        except PathTaken:
            remove_workspace(root)
    root = _made(folder, secrets.token_hex(NAME_BYTES), user).root
    return Workspace(root, user, make_link(root, user, bases))


def _made(folder: Path, name: str, user: JobUser | None) -> Workspace:
    """Make the folders of a workspace in `folder`. Raises as `make_workspace`."""
    workspace = Workspace(folder.absolute() / name, user)
    try:
        try:
            workspace.root.mkdir(FOLDER_MODE)
        except (FileNotFoundError, NotADirectoryError):
            _make(folder)
            workspace.root.mkdir(FOLDER_MODE)
        for place in workspace.folders:
            place.mkdir(FOLDER_MODE)
        if user is not None:
            give(user, *workspace.folders)
            workspace.git_settings.write_text(_ANY_OWNER)
            workspace.git_settings.chmod(_READABLE)
            workspace.root.chmod(FOLDER_MODE | PASSABLE)
    except OSError as error:
        remove_workspace(workspace.root)
        raise WorkspaceFailed(f"cannot make a workspace in {folder}", error) from error
    return workspace


def restore_checkout(workspace: Workspace) -> None:
    """Restore the checkout's folder if the job has removed it, made it inaccessible, or replaced it.

    The next process in it is an operator's hook, which must not run in a folder of the job's choice. Raises `OSError`.
    """
    for folder in (workspace.root, workspace.checkout):
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(folder.lstat().st_mode):
                folder.unlink()
            elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                folder.chmod(FOLDER_MODE)
        folder.mkdir(FOLDER_MODE, exist_ok=True)


def _make(folder: Path) -> None:
    """Make the folder of all workspaces. Raises `OperatorError`, or `OSError` if the machine refuses."""
    try:
        make_folder(folder)
    except OperatorError as error:
        if isinstance(error.__cause__, OSError) and refusal_in(error.__cause__) is not None:
            raise error.__cause__ from error
        raise


def give(user: JobUser, *places: Path) -> None:
    """Give paths to `user`; they are in a folder of the agent, so that no other process can replace them meanwhile."""
    for place in places:
        os.chown(place, user.uid, user.gid, follow_symlinks=False)


def write_private(path: Path, content: bytes, user: JobUser | None = None) -> None:
    """Write a new file that only its owner can read: the agent, or `user`. Raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    if user is not None:
        give(user, path)


def remove_workspaces(agent_home: Path, bases: Sequence[Path] = ()) -> list[Leftover]:
    """Remove all workspaces that a killed agent has left. The home must be locked."""
    folder = agent_home / WORKSPACES_FOLDER
    if not folder.is_dir():
        return []
    return [leftover for root in sorted(folder.iterdir()) for leftover in clear_workspace(root, bases)]


def clear_workspace(root: Path, bases: Sequence[Path] = ()) -> list[Leftover]:
    """Remove a workspace, and first the links to it: `remove_workspaces` finds these by the workspace's name."""
    leftovers: list[Leftover] = []
    for place in folders_of(root, bases):
        leftovers += remove_workspace(place)
    return leftovers + remove_workspace(root)


def remove_workspace(root: Path) -> list[Leftover]:
    """Remove a workspace, or another folder, with everything in it, and return what is left. Many files take long."""
    try:
        if not stat.S_ISDIR(root.lstat().st_mode):
            root.unlink()  # the job has replaced the folder
            return []
        top = _open_folder(str(root), None)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [Leftover.of(str(root), error)]
    try:
        removal = _Removal(top, str(root))
        removal.run()
    finally:
        os.close(top)
    if not removal.leftovers:
        try:
            root.rmdir()
        except OSError as error:
            return [Leftover.of(str(root), error)]
    return removal.leftovers


class _Removal:
    """Removal of everything in the folder with the descriptor `top`: few descriptors at a time, no recursion."""

    def __init__(self, top: int, path: str) -> None:
        self._top = top
        self._path = path
        self._waiting: list[tuple[str, str]] = []  # folders in `top` to empty: name, and original path
        self._prefix = f".removing-{secrets.token_hex(8)}-"
        self._moved = 0
        self.leftovers: list[Leftover] = []

    def run(self) -> None:
        """Remove what can be removed; the rest is in `leftovers`."""
        try:
            self._empty(self._top, self._path)
        except OSError as error:
            self._report(self._path, error)
        while self._waiting:
            name, was = self._waiting.pop()
            try:
                folder = _open_folder(name, self._top)
                try:
                    emptied = self._empty(folder, was)
                finally:
                    os.close(folder)
                if emptied:
                    os.rmdir(name, dir_fd=self._top)
            except OSError as error:
                self._report(was, error)

    def _empty(self, folder: int, path: str) -> bool:
        """Unlink the files, move the folders up into `top`, and return whether that worked for all."""
        emptied = True
        with os.scandir(folder) as entries:
            listed = list(entries)
        for entry in listed:
            was = f"{path}/{entry.name}"[:PATH_CHARS_MAX]
            try:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=folder)
                elif folder == self._top:
                    self._waiting.append((entry.name, was))
                else:
                    self._move_up(entry.name, folder, was)
            except OSError as error:
                self._report(was, error)
                emptied = False
        return emptied

    def _move_up(self, name: str, folder: int, was: str) -> None:
        with suppress(OSError):  # an empty folder can be removed, even if it is another user's
            os.rmdir(name, dir_fd=folder)
            return
        os.close(_open_folder(name, folder))  # makes the folder writable, which the move requires
        self._moved += 1
        new = f"{self._prefix}{self._moved}"
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=self._top)
        self._waiting.append((new, was))

    def _report(self, path: str, error: OSError) -> None:
        if len(self.leftovers) < LEFTOVERS_MAX:
            self.leftovers.append(Leftover.of(path, error))


def _open_folder(name: str, parent: int | None) -> int:
    """Open a folder, even if its mode denies access to its owner; never follow a link."""
    place = os.open(name, os.O_PATH | _FOLDER, dir_fd=parent)
    try:
        with suppress(PermissionError):  # another user's folder: perhaps its mode allows access already
            Path(f"/proc/self/fd/{place}").chmod(FOLDER_MODE)
        return os.open(".", os.O_RDONLY | _FOLDER, dir_fd=place)
    finally:
        os.close(place)
