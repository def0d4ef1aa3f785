"""Backups of a SQLite store: made while its broker runs, verified, and put back.

A backup is a store like any other. It is written beside its place, synced, read from end to end, and only then given
its name: what bears the name is whole.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from airunner.broker.control import BACKUP, short_path
from airunner.broker.store.check import StoreReport, check_store, open_alone
from airunner.broker.store.copying import Progress, StoreCopy
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError

PARTIAL: Final = ".partial"
KEPT: Final = ".before-restore"
ANSWER_S_MAX: Final = 60.0  # between two lines of a broker that makes a copy
_LINE_BYTES_MAX: Final = 4_096
_COPY_BYTES: Final = 1 << 20

Told = Callable[[Progress], None]
"""Is told how far a copy is."""


class _Answer(msgspec.Struct):
    """One line of the control socket's."""

    copied: int = 0
    pages: int = 0
    done: bool = False
    error: str = ""


def back_up(store: Path, to: Path, told: Told, *, force: bool = False) -> StoreReport:
    """Copy the store to the file `to` (0600) and verify the copy, whether a broker has it or none.

    A store with a fault is copied too: the report has what is wrong.

    Raises `OperatorError`: `to` is there and not `force`, or cannot be written, or there is no such store.
    """
    if to.exists() and not force:
        raise OperatorError(f"{to} is there already: name another, or give --force")
    partial = to.with_name(to.name + PARTIAL)
    try:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OperatorError(f"cannot write {partial}: {error.strerror}") from error
    try:
        try:
            os.fchmod(descriptor, 0o600)
            if not _copy_online(store, descriptor, told):
                _copy_offline(store, descriptor, told)
            os.fsync(descriptor)
        except OSError as error:
            raise OperatorError(f"cannot write {partial}: {error.strerror or error}") from error
        finally:
            os.close(descriptor)
        report = check_store(partial)
        partial.replace(to)
        _sync_folder(to.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return report


def restore(backup: Path, store: Path, *, force: bool = False) -> StoreReport:
    """Put a backup in the place of the store, once it is shown to be whole; what was there is kept beside it.

    Raises `OperatorError`: the backup has a fault, a broker has the store, or one is there and not `force`.
    """
    report = check_store(backup)
    if report.faults:
        raise OperatorError(f"{backup} has a fault and is not restored: {report.faults[0].words}", exit_code=1)
    if store.exists() and not force:
        raise OperatorError(f"{store} is there already: --force replaces it, and keeps it as {store.name}{KEPT}")
    try:
        store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = store.with_name(store.name + PARTIAL)
        _copy_file(backup, partial)
        if store.exists():
            open_alone(store).close()  # no broker has it; and what its journal holds is in the file now
            kept = store.with_name(store.name + KEPT)
            kept.unlink(missing_ok=True)
            os.link(store, kept)
        partial.replace(store)
        _sync_folder(store.parent)
    except OSError as error:
        raise OperatorError(f"cannot write {error.filename or store}: {error.strerror}") from error
    return report


def _copy_online(store: Path, descriptor: int, told: Told) -> bool:
    """Have the broker that has the store copy it; False where there is none.

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
            if _copied(control, told):
                return True
        except TimeoutError as error:
            raise OperatorError(
                "the broker does not answer, or makes another backup; try again later", exit_code=EXIT_UNAVAILABLE
            ) from error
    raise OperatorError("the broker ended while it copied its store; try again", exit_code=EXIT_UNAVAILABLE)


def _copied(control: socket.socket, told: Told) -> bool:
    """Whether the broker says that the copy is done, before it leaves.

    Raises `OperatorError`: it says why it is not; `TimeoutError`.
    """
    with control.makefile("rb") as answers:
        while line := answers.readline(_LINE_BYTES_MAX):
            answer = msgspec.json.decode(line, type=_Answer)
            if answer.error:
                raise OperatorError(f"the broker could not make the copy: {answer.error}", exit_code=1)
            if answer.done:
                return True
            told(Progress(answer.copied, answer.pages))
    return False


def _copy_offline(store: Path, descriptor: int, told: Told) -> None:
    """Copy a store that no broker has. Raises `OperatorError`, `OSError`."""
    source = open_alone(store)
    try:
        copy = StoreCopy(source, descriptor)
        try:
            while not copy.done:
                told(copy.step())
        finally:
            copy.close()
    finally:
        source.close()


def _copy_file(source: Path, target: Path) -> None:
    """Copy the bytes of a file to a new one, 0600 and synced."""
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with source.open("rb") as content:
            while chunk := content.read(_COPY_BYTES):
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
