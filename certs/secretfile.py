"""Secret files: written so that nobody else may read or change them, and refused when another user may.

Guarantees
- Mode 0600 from the first byte, whatever the umask: other users can never read a key, not even for an instant.
- Whole or not at all: content is written and synced under another name and then linked or renamed into place, so
  no reader ever sees half a key, not even after a power cut.
- `create` never changes an existing file, even when two processes race; `replace` does.
- A file is checked on the open descriptor, so it cannot be exchanged between the check and the read.
- The folders above a file are checked by `ownership`, once, when a process starts to use them.
- A function that cannot do its work raises `OperatorError`, with the path and the reason.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from airunner.certs.ownership import OTHERS_READ_OR_WRITE, OTHERS_WRITE, as_user, unsafe_status_reason
from airunner.protocol.errors import OperatorError

FILE_BYTES_MAX: Final = 1_048_576  # 15 000 lines of an allow-list; keys take a few hundred bytes
RUN_INIT: Final = "run `airunner certs init`"
_ANY: Final = re.compile(b"")
_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700


class MissingFile(OperatorError):
    """The file does not exist."""


def make_folder(folder: Path) -> None:
    """Make `folder` and its missing parents, each with mode 0700; check that `folder` can be written."""
    try:
        for place in (*reversed(folder.parents), folder):
            if not place.exists():
                place.mkdir(mode=_FOLDER_MODE, exist_ok=True)
                place.chmod(_FOLDER_MODE)  # a umask can remove permission bits
    except OSError as error:
        raise OperatorError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not folder.is_dir():
        raise OperatorError(f"{folder} is not a folder: move it away")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise OperatorError(f"the folder {folder} cannot be written: use another AIRUNNER_HOME")


def create(path: Path, content: bytes) -> bool:
    """Create the file `path`; return False, and leave the file unchanged, when it exists."""
    with _os_error_reported(f"cannot write {path}"), _draft(path, content) as draft:
        try:
            os.link(draft, path)  # unlike a rename, it fails when the name exists
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True


def replace(path: Path, content: bytes) -> None:
    """Write the file `path`, which may exist; readers see the old content or the new."""
    with _os_error_reported(f"cannot write {path}"), _draft(path, content) as draft:
        draft.rename(path)
        sync_folder(path.parent)


def read_secret(path: Path, what: str, *, if_missing: str = RUN_INIT, like: re.Pattern[bytes] = _ANY) -> bytes:
    """Read the file `path`, which only its owner may read; `what` names it in errors.

    `like` is found in the content of all such files. Another file is returned even if it is open to others, because the
    caller's parser refuses it: nobody is advised to close a file of the system.

    Raises `MissingFile`; `OperatorError`: unreadable, too big, owned by another, or open to others.
    """
    return _read(path, what, if_missing, OTHERS_READ_OR_WRITE, like)


def read_public(path: Path, what: str, *, if_missing: str = RUN_INIT, like: re.Pattern[bytes] = _ANY) -> bytes:
    """Read the file `path`, which all users may read and only its owner may write; otherwise like `read_secret`."""
    return _read(path, what, if_missing, OTHERS_WRITE, like)


def _read(path: Path, what: str, if_missing: str, forbidden: int, like: re.Pattern[bytes]) -> bytes:
    with _os_error_reported(f"cannot read {what} {path}"):
        try:
            # O_NONBLOCK: otherwise opening a FIFO waits for its writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise MissingFile(f"{what} {path} is missing: {if_missing}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OperatorError(f"{what} {path} is not a file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(FILE_BYTES_MAX + 1)
        finally:
            os.close(descriptor)
    if like.search(content):
        _check(status, path, f"{what} {path}", forbidden)
    if len(content) > FILE_BYTES_MAX:
        raise OperatorError(f"{what} {path} is bigger than {FILE_BYTES_MAX} bytes")
    return content


def _check(status: os.stat_result, path: Path, called: str, forbidden: int) -> None:
    """Check that only we, or root, could have written this file. Raises `OperatorError`."""
    owner = status.st_uid
    copy = "" if os.geteuid() == 0 else ", or make your own copy"
    if reason := unsafe_status_reason(status, path, called, forbidden, f"{as_user(owner)}{copy}"):
        raise OperatorError(reason)


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Lock `folder` against other callers of this function; the lock ends with the process, so it is never stale."""
    with _os_error_reported(f"cannot open the folder {folder}"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _draft(path: Path, content: bytes) -> Generator[Path]:
    """Write `content` to a temporary file beside `path`, which is removed at the end."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, _FILE_MODE)  # a umask can remove permission bits
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Sync the folder: only then is a new name in it on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _os_error_reported(doing: str) -> Generator[None]:
    """Turn an error of the operating system into a line for the operator."""
    try:
        yield
    except OSError as error:
        raise OperatorError(f"{doing}: {error.strerror}") from error
