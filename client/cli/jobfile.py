"""Job file of `airunner submit --config`, in YAML or JSON; `-` is standard input.

```yaml
command: make
args: [test]
timeout: 600            # seconds, or a duration such as 1h30m
environment: {LEVEL: 3, COLOUR: off}
repository: https://example.org/project.git
branch: main
retry: {limit: 2, on: [75, SIGKILL]}
notBefore: 2027-01-31T03:00:00Z
```

The keys are those of `protocol/fields.py`, and `notation` reads their values. An empty or zero value leaves a field
unset, so a file may list all keys. An error names the file, the line, the key and the expected value; an unknown key is
an error too, because it is most often misspelt, and so is a key that is there twice.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from airunner.client.cli.jobset import JOBS, MATRIX, is_job_set, job_documents
from airunner.client.cli.notation import UnfitError, is_mapping, kind_of, read, unknown_key
from airunner.client.cli.sources import STDIN_FILE, Sources
from airunner.client.cli.written import Entries, Items, line_of, load, meaning_of
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import FIELDS

FILE_BYTES_MAX: Final = 1_048_576  # a job itself takes 64 KiB at the most
KEYS: Final = {field.key: field for field in FIELDS.values()}


class JobDocument(NamedTuple):
    """Document of one job: its keys and values, and how errors call the file."""

    content: object
    file: str


class JobFile(NamedTuple):
    """Job file: the documents of its jobs, and whether it is a job set, even if of one job."""

    documents: list[JobDocument]
    is_set: bool

    def only(self) -> JobDocument:
        """Return the document of a file that describes one job. Raises `OperatorError`: it is a job set."""
        if self.is_set:
            raise OperatorError(f"{self.documents[0].file} describes several jobs: `airunner submit -f` submits them")
        return self.documents[0]


def read_job_file(file: str) -> JobFile:
    """Read a job file. Raises `OperatorError`."""
    name = "standard input" if file == STDIN_FILE else file
    return job_file_in(read_bounded("--config", file, FILE_BYTES_MAX, "a job file is small"), name)


def job_file_in(raw: bytes, name: str) -> JobFile:
    """Find the jobs in the content of a job file; errors call it `name`. Raises `OperatorError`."""
    document = load(raw, name)
    if isinstance(document, Entries) and is_job_set(document):
        return JobFile([JobDocument(job, name) for job in job_documents(document, name)], is_set=True)
    return JobFile([JobDocument(document, name)], is_set=False)


def read_bounded(flag: str, file: str, bytes_max: int, remark: str) -> bytes:
    """Read the file of an option, or standard input. Raises `OperatorError`; for a larger file with `remark`."""
    if not file:
        raise OperatorError(f"{flag} is empty: name a file, or leave the option out")
    try:
        if file == STDIN_FILE:
            raw = sys.stdin.buffer.read(bytes_max + 1)
        else:
            with Path(file).open("rb") as opened:
                raw = opened.read(bytes_max + 1)
    except OSError as error:
        raise OperatorError(f"{flag}: cannot read {file}: {error.strerror}") from error
    if len(raw) > bytes_max:
        raise OperatorError(f"{flag}: {file} is larger than {bytes_max} bytes; {remark}")
    return raw


def parse_job_file(raw: bytes, name: str, now_ms: int, sources: Sources) -> dict[str, object]:
    """Parse the content of a job file with one job; errors call the file `name`."""
    return fields_in(JobDocument(load(raw, name), name), now_ms, sources)


def fields_in(job: JobDocument, now_ms: int, sources: Sources) -> dict[str, object]:
    """Read the fields of a job; a time such as +10m counts from `now_ms`. Raises `OperatorError`."""
    document, name = job
    if meaning_of(document) is None:
        raise OperatorError(f"{name} is empty: expected keys and values such as `command: make`")
    if not is_mapping(document):
        raise OperatorError(f"{name}: expected keys and values such as `command: make`, not {kind_of(document)}")
    fields: dict[str, object] = {}
    for key, value in document.items():
        place = f"{name}, line {line_of(key)}"
        if key not in KEYS:
            raise OperatorError(f"{place}: {unknown_key(key, [*KEYS, JOBS, MATRIX])}")
        field = KEYS[str(key)]
        try:
            found = read(field, value, now_ms)
        except UnfitError as error:
            raise OperatorError(f"{name}, line {error.line or line_of(key)}: {key}: {error}") from error
        except OperatorError as error:
            raise OperatorError(f"{place}: {key}: {error}") from error
        if found is not None:
            fields[field.name] = found
            sources.note_file(field.name, name, line_of(key), _lines(value))
    return fields


def _lines(value: object) -> Iterator[tuple[object, int]]:
    """Yield the parts of a list or mapping by number or name, each with its line."""
    match value:
        case Entries():
            yield from ((str(key), line_of(key)) for key in value)
        case Items():
            yield from ((number, line_of(item)) for number, item in enumerate(value))
        case _:
            return
