"""Job records: jobs with all that is needed to run them again without their broker, as files.

A record is a zip archive of `job.json` (the job without its secrets, and the commit that was checked out), `stdin`,
`tree.bundle` and `save` (the pieces of the saved workspace in which the job begins), if the job has them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, Final
from zipfile import BadZipFile, ZipFile

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from airunner.client.again import KINDS, REPEATED, Past, taken_over
from airunner.client.savedpieces import fetch_save
from airunner.protocol.errors import EXIT_IO, EXIT_WRONG_STATE, CorruptLog, OperatorError
from airunner.protocol.fields import STDIN_BYTES_MAX, JobSpec
from airunner.protocol.requests import GetJobStdin

if TYPE_CHECKING:
    from airunner.client.client import Client

JOB_BYTES_MAX: Final = 1_048_576  # of job.json: a spec has 64 KiB
_JOB: Final = "job.json"
_STDIN: Final = "stdin"
_TREE: Final = "tree.bundle"
_SAVE: Final = "save"


class JobRecord(Struct, frozen=True, kw_only=True):
    """Record of a job; `commit` was checked out, if anything was."""

    job_id: str
    spec: JobSpec
    commit: str = ""
    stdin: bytes = b""
    bundle: Path | None = None
    save: Path | None = None

    def fields(self, environ: Mapping[str, str]) -> dict[str, Any]:
        """Return the fields of a job that repeats this one, with those values of `environ` that the record lacks."""
        return taken_over(self.spec, REPEATED, self.commit, environ)


class _Written(Struct, frozen=True, kw_only=True):
    """Content of `job.json`."""

    airunner_job: int  # version of the format
    job_id: str
    spec: JobSpec
    commit: str


async def record_of(client: Client, job_id: str, folder: Path) -> JobRecord:
    """Get the record of a job; its tree, and the save in which it begins, if it has them, are written into `folder`.

    Raises `NotFound`; `Forbidden`: the job has a standard input, and the token lacks the role `submit`; and
    `OperatorError`.
    """
    from airunner.client.artifactfiles import ArtifactFile

    spec = (await client.get(job_id)).spec
    past = Past.of([event async for event in client.replay(job_id, kinds=KINDS)])
    stdin = await _stdin_of(client, job_id) if spec.stdin_bytes else b""
    bundle = None
    if spec.tree is not None:
        bundle = folder / _TREE
        file = ArtifactFile(path=_TREE, size_bytes=spec.tree.size_bytes, index=spec.tree.index)
        with bundle.open("wb") as written:
            async for piece in client.read_artifact(job_id, file):
                written.write(piece)
    save = None
    if spec.continues is not None:
        save = folder / _SAVE
        await fetch_save(client, spec.continues, save)
    spec = replace(spec, tree=None)
    return JobRecord(job_id=job_id, spec=spec, commit=past.commit, stdin=stdin, bundle=bundle, save=save)


async def _stdin_of(client: Client, job_id: str) -> bytes:
    found = bytearray()
    # Ignored: this request is made for records alone, so it is no method of the client that users have.
    ask = client._ask  # noqa: SLF001 - of the same package  # pyright: ignore[reportPrivateUsage]
    while piece := (await ask(GetJobStdin(job_id=job_id, offset=len(found)))).data:
        found += piece
    if not found:
        raise CorruptLog
    return bytes(found)


def write_record(record: JobRecord, put: Callable[[bytes], None]) -> None:
    """Write a record as a file, piece by piece."""
    with ZipFile(_Sink(put), "w") as archive:
        written = _Written(airunner_job=1, job_id=record.job_id, spec=record.spec, commit=record.commit)
        archive.writestr(_JOB, msgspec.json.format(msgspec.json.encode(written)))
        if record.stdin:
            archive.writestr(_STDIN, record.stdin)
        for name, file in ((_TREE, record.bundle), (_SAVE, record.save)):
            if file is not None:
                archive.write(file, name)


def read_record(file: Path, folder: Path) -> JobRecord:
    """Read a record from a file; its tree is written into `folder`. Raises `OperatorError`."""
    try:
        _require_file(file)
        with ZipFile(file) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            _require_small(sizes)
            written = msgspec.json.decode(archive.read(_JOB), type=_Written)
            stdin = archive.read(_STDIN) if _STDIN in sizes else b""
            bundle, save = (_extracted(archive, name, folder) for name in (_TREE, _SAVE))
            _require_save(written.spec, save)
    except (BadZipFile, KeyError, msgspec.MsgspecError, ValueError) as error:
        words = f"{file} is no record of a job: `airunner export JOB --format job -o FILE` writes one"
        raise OperatorError(words, exit_code=EXIT_WRONG_STATE) from error
    except OSError as error:
        raise OperatorError(f"cannot read {file}: {error.strerror}", exit_code=EXIT_IO) from error
    spec, commit = written.spec, written.commit
    return JobRecord(job_id=written.job_id, spec=spec, commit=commit, stdin=stdin, bundle=bundle, save=save)


def _extracted(archive: ZipFile, name: str, folder: Path) -> Path | None:
    """Write a file of an archive into `folder`; None: it has none of this name."""
    if name not in archive.namelist():
        return None
    with archive.open(name) as source, (folder / name).open("wb") as target:
        shutil.copyfileobj(source, target)
    return folder / name


def _require_file(file: Path) -> None:
    """Require a file that has an end: a pipe or a device may have none. Raises `BadZipFile`, `OSError`."""
    if not S_ISREG(file.stat().st_mode):
        raise BadZipFile


def _require_save(spec: JobSpec, save: Path | None) -> None:
    """Require a save for a job that begins in one, and for no other. Raises `BadZipFile`."""
    if (save is None) is not (spec.continues is None):
        raise BadZipFile


def _require_small(sizes: Mapping[str, int]) -> None:
    """Require that what is read into memory is not large. Raises `BadZipFile`."""
    if sizes.get(_JOB, 0) > JOB_BYTES_MAX or sizes.get(_STDIN, 0) > STDIN_BYTES_MAX:
        raise BadZipFile


class _Sink:
    """Sink of an archive, which is written from its beginning to its end."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put

    def write(self, piece: bytes) -> int:
        """Pass a piece on."""
        self._put(piece)
        return len(piece)

    def flush(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is open."""
