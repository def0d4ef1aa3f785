"""Backups of a SQLite store: made while its broker runs, verified, and restored.

A backup is a store like any other. It is written to a file beside its place, synced, read from end to end, and only
then renamed: a file with the backup's name is whole.
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
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError

PARTIAL: Final = ".partial"
KEPT: Final = ".before-restore"
ANSWER_S_MAX: Final = 60.0  # between two lines of a broker that makes a copy, before it counts as hung
_LINE_BYTES_MAX: Final = 4_096
_COPY_BYTES: Final = 1 << 20

OnProgress = Callable[[Progress], None]
"""Progress callback of a copy."""


class _Answer(msgspec.Struct):
    """Answer line of the control socket."""

    copied: int = 0
    pages: int = 0
    done: bool = False
    error: str = ""


def back_up(store: Path, to: Path, on_progress: OnProgress, *, force: bool = False) -> StoreReport:
    """Back a store up to the file `to` (0600) and verify the copy, whether or not a broker uses the store.

    A store with a fault is copied too: the report lists the faults.

    Raises `OperatorError`: `to` exists and not `force`, or cannot be written, or there is no such store.
    """
    if os.path.lexists(to) and not force:
        raise OperatorError(f"{to} is there already: name another, or give --force")
    _refuse_stores(store, to)
    with _partial(to) as (partial, descriptor):
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
    """Restore a backup in the place of the store, once it is verified; the old store is kept beside it.

    Raises `OperatorError`: the backup has a fault, a broker uses the store, or a store exists and not `force`.
    """
    report = check_store(backup)
    if report.faults:
        raise OperatorError(f"{backup} has a fault and is not restored: {report.faults[0].words}", exit_code=1)
    if store.exists() and not force:
        raise OperatorError(f"{store} is there already: --force replaces it, and keeps it as {store.name}{KEPT}")
    try:
        store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _partial(store) as (partial, descriptor):
            _copy_file(backup, descriptor)
            _put_aside(store)
            partial.replace(store)
            sync_folder(store.parent)
    except OSError as error:
        raise OperatorError(f"cannot write {error.filename or store}: {error.strerror}") from error
    return report


def _put_aside(store: Path) -> None:
    """Keep the old store and its journals under other names: SQLite must not apply its journal to the next store.

    Raises `OperatorError`: a broker uses it, also where its file has been removed; `OSError`.
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
    """Refuse stores as targets. Raises `OperatorError`: `to` is the store itself, by any name, or one in use."""
    with suppress(OSError):
        if to.samefile(store):
            raise OperatorError(f"{to} is the store itself: name another file to copy it to")
    if to.with_name(to.name + SUFFIX).exists() or to.with_name(to.name + "-wal").exists():
        raise OperatorError(f"{to} is a store that a broker uses: name another file to copy to")


@contextmanager
def _partial(to: Path) -> Generator[tuple[Path, int]]:
    """Create a temporary file beside `to`, 0600, with its descriptor; it is removed at the end, unless renamed.

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
    """Copy a store through the broker that uses it; False where there is none.

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
            raise OperatorError(f"only the broker's user and root may back up {store}: run this as one") from error
        socket.send_fds(control, [BACKUP], [descriptor])
        try:
            if _copied(control, on_progress):
                return True
        except TimeoutError as error:
            raise OperatorError(
                "the broker does not answer, or makes another backup; try again later", exit_code=EXIT_UNAVAILABLE
            ) from error
    raise OperatorError("the broker ended while it copied its store; try again", exit_code=EXIT_UNAVAILABLE)


def _copied(control: socket.socket, on_progress: OnProgress) -> bool:
    """Read the broker's answers until the copy is done; False where the broker ended before that.

    Raises `OperatorError`: the broker could not make the copy; `TimeoutError`.
    """
    with control.makefile("rb") as answers:
        while line := answers.readline(_LINE_BYTES_MAX):
            answer = msgspec.json.decode(line, type=_Answer)
            if answer.error:
                raise OperatorError(f"the broker could not make the copy: {answer.error}", exit_code=1)
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
