"""Backups of a SQLite store: made whether or not a broker uses it, verified, and restored.

A backup is a store file like any other. It is written to a temporary file in the target folder, synced, checked
completely, and only then renamed: so a file with the backup's name is always complete.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from airunner.broker.checking import StoreReport, check_store
from airunner.broker.control import BACKUP, SUFFIX, short_path
from airunner.broker.store.sqlite.copying import Progress
from airunner.broker.store.sqlite.opening import open_alone
from airunner.certs.secretfile import sync_folder
from airunner.protocol.errors import EXIT_IO, EXIT_UNAVAILABLE, OperatorError

PARTIAL: Final = ".partial"  # suffix of the temporary file
KEPT: Final = ".before-restore"  # suffix of the old store after a restore
ANSWER_S_MAX: Final = 60.0  # seconds between two lines of the copying broker, before it counts as hung
_LINE_BYTES_MAX: Final = 4_096
_COPY_BYTES: Final = 1 << 20

OnProgress = Callable[[Progress], None]
"""Progress callback of a copy."""


class _Answer(msgspec.Struct):
    """Line that the broker sends over the control socket."""

    copied: int = 0
    pages: int = 0
    done: bool = False
    error: str = ""


def back_up(store: Path, to: Path, on_progress: OnProgress, *, force: bool = False) -> StoreReport:
    """Back a store up to the file `to` (0600) and verify the copy, whether or not a broker uses the store.

    A store with a fault is copied too: the report lists the faults.

    Raises `OperatorError`: `to` exists and not `force`, is a store in use, or cannot be written; there is no such
    store, or the broker that uses it makes no copy.
    """
    if os.path.lexists(to) and not force:
        raise OperatorError(f"{to} exists already: name another file, or replace this one with --force")
    _refuse_stores(store, to)
    with partial_file(to) as (partial, descriptor):
        try:
            if not _copy_online(store, descriptor, on_progress):
                _copy_offline(store, descriptor, on_progress)
            os.fsync(descriptor)
        except OSError as error:
            raise OperatorError(f"cannot write {partial}: {error.strerror or error}") from error
        report = check_store(partial)
        partial.replace(to)
        sync_folder(to.parent)
    return report


def restore(backup: Path, store: Path, *, force: bool = False) -> StoreReport:
    """Verify a backup and replace the store with it; the old store stays beside the new one, with the suffix `KEPT`.

    Raises `OperatorError`: the backup has a fault, a broker uses the store, or a store exists and not `force`.
    """
    report = check_store(backup)
    if report.faults:
        raise OperatorError(f"{backup} has a fault and is not restored: {report.faults[0].words}", exit_code=EXIT_IO)
    if store.exists() and not force:
        raise OperatorError(f"{store} exists already: --force replaces it, and renames it to {store.name}{KEPT}")
    try:
        store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with partial_file(store) as (partial, descriptor):
            _copy_file(backup, descriptor)
            _put_aside(store)
            partial.replace(store)
            sync_folder(store.parent)
    except OSError as error:
        raise OperatorError(f"cannot write {error.filename or store}: {error.strerror}") from error
    return report


def _put_aside(store: Path) -> None:
    """Rename the old store and its journals: SQLite must not apply the old journal to the restored store.

    Raises `OperatorError`: a broker uses the store, even if the file has been removed; `OSError`.
    """
    with socket.socket(socket.AF_UNIX) as control, short_path(store) as path:
        if control.connect_ex(path) == 0:
            raise OperatorError(f"a broker uses {store}: stop it first", exit_code=EXIT_UNAVAILABLE)
    if store.exists():
        try:
            open_alone(store).close()  # writes its journal back into the file
        except OperatorError as error:
            if error.exit_code == EXIT_UNAVAILABLE:
                raise
        kept = store.with_name(store.name + KEPT)
        kept.unlink(missing_ok=True)
        os.link(store, kept)
    for journal in ("-wal", "-journal"):
        with suppress(FileNotFoundError):
            store.with_name(store.name + journal).replace(store.with_name(store.name + KEPT + journal))


def _refuse_stores(store: Path, to: Path) -> None:
    """Refuse a store as the target. Raises `OperatorError`: `to` is the store itself, or one in use."""
    with suppress(OSError):
        if to.samefile(store):
            raise OperatorError(f"{to} is the store itself: name another file to copy it to")
    if to.with_name(to.name + SUFFIX).exists() or to.with_name(to.name + "-wal").exists():
        raise OperatorError(f"{to} is a store that a broker uses: name another file to copy to")


@contextmanager
def partial_file(to: Path) -> Generator[tuple[Path, int]]:
    """Create a temporary file beside `to`, 0600, and open it; it is removed at the end, unless it was renamed.

    Raises `OperatorError`: it cannot be created.
    """
    try:
        descriptor, name = tempfile.mkstemp(PARTIAL, f"{to.name}.", to.parent)
    except OSError as error:
        raise OperatorError(f"cannot write {to}: {error.strerror}") from error
    partial = Path(name)
    try:
        yield partial, descriptor
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)


def _copy_online(store: Path, descriptor: int, on_progress: OnProgress) -> bool:
    """Have the broker that uses a store copy it; False: no broker uses it.

    Raises `OperatorError`, `OSError`.
    """
    if not store.parent.is_dir():
        return False
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(ANSWER_S_MAX)
        try:
            with short_path(store) as path:
                control.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except PermissionError as error:
            raise OperatorError(f"cannot back up {store}: run this as the broker's user, or as root") from error
        socket.send_fds(control, [BACKUP], [descriptor])
        try:
            if _copied(control, on_progress):
                return True
        except TimeoutError as error:
            raise OperatorError(
                "the broker does not respond, or makes another backup; try again later", exit_code=EXIT_UNAVAILABLE
            ) from error
    raise OperatorError("the broker ended while it copied its store; try again", exit_code=EXIT_UNAVAILABLE)


def _copied(control: socket.socket, on_progress: OnProgress) -> bool:
    """Read the broker's lines until the copy is done; False: the broker ended before that.

    Raises `OperatorError`: the broker could not make the copy; `TimeoutError`.
    """
    with control.makefile("rb") as answers:
        while line := answers.readline(_LINE_BYTES_MAX):
            answer = msgspec.json.decode(line, type=_Answer)
            if answer.error:
                raise OperatorError(f"the broker could not make the copy: {answer.error}", exit_code=EXIT_IO)
            if answer.done:
                return True
            on_progress(Progress(answer.copied, answer.pages))
    return False


def _copy_offline(store: Path, descriptor: int, on_progress: OnProgress) -> None:
    """Copy a store that no broker uses. Raises `OperatorError`, `OSError`."""
    source = open_alone(store)
    try:
        copy = source.copy_to(descriptor)
        try:
            while not copy.done:
                on_progress(copy.step())
        finally:
            copy.close()
    finally:
        source.close()


def _copy_file(source: Path, descriptor: int) -> None:
    """Copy the bytes of a file into an open one, and sync it."""
    with source.open("rb") as content:
        while chunk := content.read(_COPY_BYTES):
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)
