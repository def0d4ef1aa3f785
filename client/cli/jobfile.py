"""Job file of `airunner submit --config`, in YAML or JSON (which is YAML).

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
unset, so a file may list all keys. An error names the key and the expected value; an unknown key is an error too,
because it is most often misspelt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from airunner.client.cli.notation import is_mapping, kind_of, read
from airunner.client.cli.written import load
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import FIELDS

FILE_BYTES_MAX: Final = 1_048_576  # a job itself takes 64 KiB at the most
KEYS: Final = {field.key: field for field in FIELDS.values()}


def read_job_file(path: Path, now_ms: int = 0) -> dict[str, object]:
    """Read the fields of a job from a file; a time such as +10m counts from `now_ms`. Raises `OperatorError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > FILE_BYTES_MAX:
        raise OperatorError(f"{path} is larger than {FILE_BYTES_MAX} bytes; a job file is small")
    return parse_job_file(raw, str(path), now_ms)


def parse_job_file(raw: bytes, name: str, now_ms: int = 0) -> dict[str, object]:
    """Parse a job file's content as `read_job_file` does; errors call the file `name`."""
    import yaml

    try:
        document = load(raw)
    except yaml.YAMLError as error:
        raise OperatorError(f"{name} is neither YAML nor JSON: {_yaml_problem(error)}") from error
    except (ValueError, RecursionError) as error:
        raise OperatorError(f"{name} is neither YAML nor JSON: {error}") from error
    if not is_mapping(document):
        raise OperatorError(f"{name}: expected keys and values such as `command: make`, not {kind_of(document)}")
    fields: dict[str, object] = {}
    for key, value in document.items():
        if not isinstance(key, str) or key not in KEYS:
            raise OperatorError(f"{name}: unknown key {key!r}; the keys are {', '.join(KEYS)}")
        field = KEYS[key]
        try:
            found = read(field, value, now_ms)
        except OperatorError as error:
            raise OperatorError(f"{name}: {key}: {error}") from error
        if found is not None:
            fields[field.name] = found
    return fields


def _yaml_problem(error: Exception) -> str:
    """Shorten an error of PyYAML to one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else problem
