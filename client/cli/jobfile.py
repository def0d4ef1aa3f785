"""The job file: what `airunner submit --config` reads, YAML or JSON (which is YAML).

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

Where a key takes text, a word is that text, whatever YAML makes of it: `no`, `1.10`, `2026-01-31`. What is empty or
zero is not set, so a file may list all keys. One table says which there are. Every mistake is named with its key and
what was expected; a key that is not in the table is a mistake too, since it is most often a typing error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeGuard

from airunner.client.cli.instants import instant_ms
from airunner.client.cli.retrying import retry_policy
from airunner.client.cli.written import load, meaning_of
from airunner.protocol.durations import duration_ms, whole_seconds
from airunner.protocol.errors import OperatorError
from airunner.protocol.job import TERMINAL_SIDE_MAX, ProcessType, TerminalSize
from airunner.protocol.jobretry import RetryPolicy

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
        document = load(raw)
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
        if _is_empty(value):
            continue
        try:
            found = instant_ms(_instant(value), now_ms) if convert is _instant else convert(value)
        except (IllTyped, OperatorError) as error:
            raise OperatorError(f"{name}: {key}: {error}") from error
        if found is not None:
            fields[field] = found
    return fields


def _is_empty(value: object) -> bool:
    """Whether it stands for nothing: null, empty text, an empty list or mapping."""
    return meaning_of(value) is None or value in ("", [], {})


def _is_mapping(value: object) -> TypeGuard[dict[object, object]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise IllTyped(f"expected text, not {_kind(value)}")
    return str(value)


def _word(value: object, what: str) -> str:
    """Text as it is written; but YAML's `null` is too often not what was meant."""
    if not isinstance(value, str) or meaning_of(value) is None:
        hint = "; put it in quotes" if isinstance(value, str) else ""
        raise IllTyped(f"{what}: expected text, not {_kind(value)}{hint}")
    return str(value)


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
            raise IllTyped(f"expected names that are text, not {_kind(name)}")
        variables[str(name)] = "" if text == "" else _word(text, name)
    return variables


def _seconds(value: object) -> int | None:
    meant = meaning_of(value)
    if isinstance(meant, int) and not isinstance(meant, bool) and meant >= 0:
        return meant or None
    if isinstance(value, str) and not isinstance(meant, bool):
        with suppress(OperatorError):
            return whole_seconds(value) or None
    raise IllTyped(f"expected whole seconds, or a duration such as 1h30m, not {_kind(value)}")


def _process_type(value: object) -> ProcessType:
    if not isinstance(value, str) or value.lower() not in tuple(ProcessType):
        raise IllTyped(f"expected {' or '.join(ProcessType)}, not {_kind(value)}")
    return ProcessType(value.lower())


def _instant(value: object) -> str:
    """As it is written; YAML reads more ways of writing an instant than we do."""
    meant = meaning_of(value)
    return meant.isoformat() if isinstance(meant, datetime) else _text(value)


def _whole(value: object) -> int:
    meant = meaning_of(value)
    if isinstance(meant, bool) or not isinstance(meant, int):
        raise IllTyped(f"expected a whole number, not {_kind(value)}")
    return meant


def _whole_or_unset(value: object) -> int | None:
    return _whole(value) or None


def _length_s(value: object, what: str) -> float | None:
    if _is_empty(value):
        return None
    meant = meaning_of(value)
    if isinstance(meant, str):
        with suppress(OperatorError):
            meant = duration_ms(meant) / 1_000
    if isinstance(meant, (int, float)) and not isinstance(meant, bool) and 0 <= meant <= BACKOFF_S_MAX:
        return meant
    raise IllTyped(f"{what}: expected a number of seconds up to {BACKOFF_S_MAX}, or 1m30s, not {_kind(value)}")


def _retry(value: object) -> RetryPolicy | None:
    if not _is_mapping(value):
        limit = _whole(value)
        return retry_policy(limit) if limit else None
    if unknown := [key for key in value if key not in _RETRY_KEYS]:
        raise IllTyped(f"unknown key {unknown[0]!r}; the keys are {', '.join(_RETRY_KEYS)}")
    limit = _whole(value.get("limit"))
    policy = retry_policy(
        limit or 1,
        _words(value.get("on", [])),
        _length_s(value.get("backoff"), "backoff"),
        _length_s(value.get("maxBackoff"), "maxBackoff"),
    )
    return policy if limit else None


def _yes_or_no(value: object) -> bool:
    meant = meaning_of(value)
    if not isinstance(meant, bool):
        raise IllTyped(f"expected true or false, not {_kind(value)}")
    return meant


def _terminal(value: object) -> TerminalSize:
    if not _is_mapping(value) or set(value) - {"cols", "rows"}:
        raise IllTyped(f"expected a size such as {{cols: 120, rows: 40}}, not {_kind(value)}")
    sides = {str(key): _whole(side) for key, side in value.items() if not _is_empty(side)}
    if any(not 0 <= side <= TERMINAL_SIDE_MAX for side in sides.values()):
        raise IllTyped(f"expected sides from 1 to {TERMINAL_SIDE_MAX}")
    return TerminalSize(**{key: side for key, side in sides.items() if side})


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
        "depth": ("depth", _whole_or_unset),
        "submodules": ("submodules", _yes_or_no),
        "require": ("require", _variables),
        "repository": ("repository", _text),
        "commit": ("commit", _text),
        "branch": ("branch", _text),
        "owner": ("owner", _text),
        "queue": ("queue", _text),
        "priority": ("priority", _whole),
        "notBefore": ("not_before_ms", _instant),
        "maxAttempts": ("max_attempts", _whole_or_unset),
        "retry": ("retry", _retry),
    }
)
"""Each key of a job file, the field of `JobSpec` that it gives, and how its value is read."""


def _kind(value: object) -> str:
    """What `value` is, in the words of YAML."""
    match meaning_of(value):
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str() as text:
            return f"the text {text[:40]!r}"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"the text {str(value)[:40]!r}"  # to YAML a date


def _yaml_problem(error: Exception) -> str:
    """One line of PyYAML's several."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else problem
