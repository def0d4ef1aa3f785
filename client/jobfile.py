"""The job file: what `airunner submit --config` reads, YAML or JSON (which is YAML).

```yaml
command: make
args: [test]
timeout: 600            # seconds
environment: {LEVEL: 3}
repository: https://example.org/project.git
branch: main
retry: {limit: 2, on: [75, SIGKILL]}
notBefore: 2027-01-31T03:00:00Z
```

One table says which keys there are. Every mistake is named with its key and what was expected; a key that is
not in the table is a mistake too, since it is most often a typing error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeGuard

from airunner.client.instants import instant_ms
from airunner.client.retrying import retry_policy
from airunner.protocol.errors import OperatorError
from airunner.protocol.job import TERMINAL_SIDE_MAX, ProcessType, TerminalSize
from airunner.protocol.retrypolicy import RetryPolicy

BACKOFF_S_MAX: Final = 86_400
FILE_BYTES_MAX: Final = 1_048_576  # a job itself takes 64 KiB at the most


class IllTyped(Exception):
    """The value is not of the expected kind; the message says what was expected."""


def read_job_file(path: Path, now_ms: int = 0) -> dict[str, object]:
    """The fields of `JobSpec` that the file at `path` gives; a time from now counts from `now_ms`.

    Raises `OperatorError` for a file that cannot be read, is no YAML, or holds what no job has.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > FILE_BYTES_MAX:
        raise OperatorError(f"{path} is larger than {FILE_BYTES_MAX} bytes; a job file is small")
    return parse_job_file(raw, str(path), now_ms)


def parse_job_file(raw: bytes, name: str, now_ms: int = 0) -> dict[str, object]:
    """As `read_job_file`, for the content of the file called `name`."""
    import yaml

    try:
        document: object = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise OperatorError(f"{name} is neither YAML nor JSON: {_yaml_problem(error)}") from error
    except (ValueError, RecursionError) as error:
        raise OperatorError(f"{name} is neither YAML nor JSON: {error}") from error
    if not _is_mapping(document):
        raise OperatorError(f"{name}: expected keys and values such as `command: make`, not {_kind(document)}")
    fields: dict[str, object] = {}
    for key, value in document.items():
        if not isinstance(key, str) or key not in KEYS:
            raise OperatorError(f"{name}: unknown key {key!r}; the keys are {', '.join(KEYS)}")
        field, convert = KEYS[key]
        try:
            fields[field] = instant_ms(_instant(value), now_ms) if convert is _instant else convert(value)
        except (IllTyped, OperatorError) as error:
            raise OperatorError(f"{name}: {key}: {error}") from error
    return fields


def _is_mapping(value: object) -> TypeGuard[dict[object, object]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _text(value: object) -> str:
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, (bool, int, float)) else ""
        raise IllTyped(f"expected text, not {_kind(value)}{hint}")
    return value


def _word(value: object, what: str) -> str:
    """Text, or a number as it would be typed; YAML's `yes` and `null` are too often not what was meant."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, bool) or value is None else ""
        raise IllTyped(f"{what}: expected text, not {_kind(value)}{hint}")
    return value


def _words(value: object) -> tuple[str, ...]:
    if not _is_list(value):
        raise IllTyped(f"expected a list of texts such as [test, --fast], not {_kind(value)}")
    return tuple(_word(word, f"item {number}") for number, word in enumerate(value, 1))


def _variables(value: object) -> dict[str, str]:
    if not _is_mapping(value):
        raise IllTyped(f"expected names and texts such as {{LEVEL: high}}, not {_kind(value)}")
    variables: dict[str, str] = {}
    for name, text in value.items():
        if not isinstance(name, str):
            raise IllTyped(f"expected names that are text, not {_kind(name)}; put {name!r} in quotes")
        variables[name] = _word(text, name)
    return variables


def _seconds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise IllTyped(f"expected a whole number of seconds from 1 on, not {_kind(value)}")
    return value


def _process_type(value: object) -> ProcessType:
    if not isinstance(value, str) or value.lower() not in tuple(ProcessType):
        raise IllTyped(f"expected {' or '.join(ProcessType)}, not {_kind(value)}")
    return ProcessType(value.lower())


def _instant(value: object) -> str:
    """As it is written; YAML reads an instant by itself."""
    if isinstance(value, datetime):
        return value.isoformat()
    return _text(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise IllTyped(f"expected a whole number, not {_kind(value)}")
    return value


def _length_s(value: object, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= BACKOFF_S_MAX:
        return value
    raise IllTyped(f"{what}: expected a number of seconds up to {BACKOFF_S_MAX}, not {_kind(value)}")


def _retry(value: object) -> RetryPolicy | None:
    if not _is_mapping(value):
        limit = _whole(value)
        return retry_policy(limit) if limit else None
    policy = {"on" if key is True else key: entry for key, entry in value.items()}  # YAML 1.1 reads `on` as true
    if unknown := [key for key in policy if key not in _RETRY_KEYS]:
        raise IllTyped(f"unknown key {unknown[0]!r}; the keys are {', '.join(_RETRY_KEYS)}")
    return retry_policy(
        _whole(policy.get("limit")),
        _words(policy.get("on", [])),
        _length_s(policy.get("backoff"), "backoff"),
        _length_s(policy.get("maxBackoff"), "maxBackoff"),
    )


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise IllTyped(f"expected true or false, not {_kind(value)}")
    return value


def _terminal(value: object) -> TerminalSize:
    if not _is_mapping(value) or set(value) - {"cols", "rows"}:
        raise IllTyped(f"expected a size such as {{cols: 120, rows: 40}}, not {_kind(value)}")
    sides = {key: _whole(side) for key, side in value.items()}
    if any(not 1 <= side <= TERMINAL_SIDE_MAX for side in sides.values()):
        raise IllTyped(f"expected sides from 1 to {TERMINAL_SIDE_MAX}")
    return TerminalSize(**{str(key): side for key, side in sides.items()})


_RETRY_KEYS: Final = ("limit", "on", "backoff", "maxBackoff")

KEYS: Final[Mapping[str, tuple[str, Callable[[object], object]]]] = MappingProxyType(
    {
        "command": ("command", _text),
        "args": ("args", _words),
        "processType": ("process_type", _process_type),
        "timeout": ("timeout_seconds", _seconds),
        "workingDirectory": ("working_directory", _text),
        "environment": ("environment", _variables),
        "metadata": ("metadata", _variables),
        "secrets": ("secrets", _words),
        "secretFiles": ("secret_files", _words),
        "terminal": ("terminal", _terminal),
        "depth": ("depth", _whole),
        "submodules": ("submodules", _yes_or_no),
        "require": ("require", _variables),
        "repository": ("repository", _text),
        "commit": ("commit", _text),
        "branch": ("branch", _text),
        "owner": ("owner", _text),
        "queue": ("queue", _text),
        "priority": ("priority", _whole),
        "notBefore": ("not_before_ms", _instant),
        "maxAttempts": ("max_attempts", _whole),
        "retry": ("retry", _retry),
    }
)
"""Each key of a job file, the field of `JobSpec` that it gives, and how its value is read."""


def _kind(value: object) -> str:
    """What `value` is, in the words of YAML."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {value[:40]!r}"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"a {type(value).__name__}"  # YAML's dates


def _yaml_problem(error: Exception) -> str:
    """One line of PyYAML's several."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else problem
