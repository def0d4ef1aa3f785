"""Job set, a job file that describes several jobs: as a list, or as a matrix of values.

```yaml
name: tests
matrix:
  python: ["3.11", "3.12"]
  system: [linux, macos]
  exclude: [{python: "3.11", system: macos}]
command: make
args: [test, "PYTHON={{matrix.python}}"]
require: {os: "{{matrix.system}}"}
```

Each cell of the matrix is a job: `{{matrix.NAME}}` is replaced in every text of the file by the cell's value, and the
job's name gets the cell's values, as in `tests (3.11, linux)`, unless it names some itself. A file with `jobs:`, a list
of jobs with names of their own, gives each of them its other keys, which the job's own keys override; each of them may
have a matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Final

from airunner.client.cli.notation import is_mapping, kind_of
from airunner.client.cli.written import Entries, Items, Written, line_of
from airunner.protocol.errors import OperatorError

JOBS: Final = "jobs"
MATRIX: Final = "matrix"
EXCLUDE: Final = "exclude"
JOBS_MAX: Final = 1_000  # jobs of one file: each is followed to its end
_PLACE: Final = re.compile(r"\{\{\s*matrix\.([^\s{}]*)\s*\}\}")


def is_job_set(document: object) -> bool:
    """Whether a document describes several jobs."""
    return is_mapping(document) and (JOBS in document or MATRIX in document)


def job_documents(document: Entries, file: str) -> Iterator[Entries]:
    """Yield the document of each job that a job set describes. Raises `OperatorError` with `file` and the line."""
    made = 0
    shared = _without(document, JOBS, MATRIX)
    for job in _jobs(document, file):
        own = _without(job, MATRIX)
        whole = Entries(job.line)
        for entries in (shared, own):
            for key in entries:
                whole.pop(key, None)  # the line is that of the key that counts
                whole[key] = entries[key]
        for cell in _cells(job.get(_key(MATRIX)), file):
            made += 1
            if made > JOBS_MAX:
                raise OperatorError(f"{file}: more than {JOBS_MAX:,} jobs are described here")
            yield _in_cell(whole, cell, file) if cell else whole
    if not made:
        raise OperatorError(f"{file}: no job is described here")


def _jobs(document: Entries, file: str) -> Iterator[Entries]:
    """Yield the jobs of a document: those of its list, or the document itself."""
    if JOBS not in document:
        yield document
        return
    if MATRIX in document:
        line = line_of(next(key for key in document if key == MATRIX))
        raise OperatorError(f"{file}, line {line}: {MATRIX}: give each of the {JOBS} its matrix, or leave the list out")
    jobs = document[_key(JOBS)]
    if not isinstance(jobs, Items):
        raise OperatorError(f"{file}: {JOBS}: expected a list of jobs, not {kind_of(jobs)}")
    for job in jobs:
        if not isinstance(job, Entries):
            raise OperatorError(f"{file}, line {line_of(job)}: {JOBS}: expected a job's keys, not {kind_of(job)}")
        yield job


def _cells(matrix: object, file: str) -> Iterator[dict[str, str]]:
    """Yield the cells of a matrix, each as its values by name; without a matrix one empty cell."""
    if matrix is None:
        yield {}
        return
    if not isinstance(matrix, Entries):
        raise OperatorError(
            f"{file}, line {line_of(matrix)}: {MATRIX}: expected names and lists of values, not {kind_of(matrix)}"
        )
    excluded = _excluded(matrix.get(_key(EXCLUDE)), file)
    axes = {
        str(name): _words(values, f"{file}, line {line_of(name)}: {MATRIX}.{name}")
        for name, values in matrix.items()
        if name != EXCLUDE
    }
    for wrong in (name for cell in excluded for name in cell if name not in axes):
        raise OperatorError(f"{file}: {MATRIX}.{EXCLUDE}: {wrong} is none of the matrix: {', '.join(axes)}")
    for values in product(*axes.values()):
        cell = dict(zip(axes, values, strict=True))
        if not any(out.items() <= cell.items() for out in excluded):
            yield cell


def _excluded(value: object, file: str) -> list[dict[str, str]]:
    """Read the cells that are left out: each lists some values, and all cells with these are meant."""
    if value is None:
        return []
    if not isinstance(value, Items) or not all(isinstance(cell, Entries) and cell for cell in value):
        raise OperatorError(
            f"{file}, line {line_of(value)}: {MATRIX}.{EXCLUDE}: expected a list of cells such as [{{os: linux}}], "
            f"not {'a list of other things' if isinstance(value, Items) else kind_of(value)}"
        )
    return [{str(name): str(word) for name, word in cell.items()} for cell in value if isinstance(cell, Entries)]


def _words(values: object, place: str) -> list[str]:
    """Read the values of an axis. Raises `OperatorError`: it is no list of words, or an empty one, or one is twice."""
    expected = f"{place}: expected a list of values such as [linux, macos]"
    if not isinstance(values, Items) or not values:
        raise OperatorError(f"{expected}, not {'an empty list' if values == [] else kind_of(values)}")
    for value in values:
        if not isinstance(value, Written):
            raise OperatorError(f"{expected}, not a list with {kind_of(value)}")
    words = list(map(str, values))
    for at, word in enumerate(words):
        if word in words[:at]:
            raise OperatorError(f"{place}: the value {word!r} is here again")
    return words


def _in_cell(job: Entries, cell: dict[str, str], file: str) -> Entries:
    """Make the document of one cell: its values in place, and in the name."""
    made = _replaced(job, cell, file)
    assert isinstance(made, Entries)
    name = job.get(_key("name"))
    if name is None or not _PLACE.search(str(name)):
        values = ", ".join(cell.values())
        made[_key("name")] = Written(f"{made[_key('name')]} ({values})" if name else values, line_of(name))
    return made


def _replaced(value: object, cell: dict[str, str], file: str) -> object:
    """Replace the places of a cell's values in all words of a value."""

    def value_of(place: re.Match[str]) -> str:
        if place[1] not in cell:
            raise OperatorError(f"{file}, line {line}: {place[0]}: the matrix has {', '.join(cell)}, not {place[1]!r}")
        return cell[place[1]]

    line = line_of(value)
    match value:
        case Written():
            text = _PLACE.sub(value_of, value)
            return value if text == value else Written(text, line)
        case Items():
            items = Items(line)
            items.extend(_replaced(item, cell, file) for item in value)
            return items
        case Entries():
            entries = Entries(line)
            entries.update({key: _replaced(item, cell, file) for key, item in value.items()})
            return entries
        case _:
            return value


def _without(document: Entries, *names: str) -> Entries:
    kept = Entries(document.line)
    kept.update({key: value for key, value in document.items() if key not in names})
    return kept


def _key(name: str) -> Written:
    return Written(name, 0)
