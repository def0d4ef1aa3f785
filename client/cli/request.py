"""Job request of `airunner submit` and `run`: the job file, options that override it, and words around `--`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from airunner.client.cli.jobfile import read_job_file
from airunner.client.cli.notation import read, word_of_option
from airunner.client.cli.options import Given
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import FIELDS
from airunner.protocol.form import Field, Form
from airunner.protocol.listhint import pairs_hint, words_hint


def fields_of(
    options: Mapping[str, Given],
    operands: Sequence[str] = (),
    words: Sequence[str] | None = None,
    config: Path | None = None,
    now_ms: int = 0,
) -> dict[str, Any]:
    """Merge the job's fields from file, options and operands; an option that is empty or 0 unsets the file's value.

    `options` are those of `options.with_job_options`; `operands` are the words before `--`, `words` the words after it.
    Environment, metadata and required tags are merged name by name. A time such as +10m counts from `now_ms`. Raises
    `OperatorError` for arguments that contradict each other or name no command.
    """
    fields: dict[str, Any] = read_job_file(config, now_ms) if config is not None else {}
    for field in FIELDS.values():
        if (given := _given(field, options)) is None:
            continue
        try:
            found: Any = read(field, given, now_ms)
        except OperatorError as error:
            raise OperatorError(f"{field.flag}: {error}") from error
        if field.form is Form.PAIRS:
            found = fields.get(field.name, {}) | found
        fields[field.name] = found
    fields |= _command_and_repository(options, operands, words)
    if fields.get("repository"):
        fields["repository"] = _repository(str(fields["repository"]))
    if not fields.get("command"):
        raise OperatorError(
            "there is no command to run: put it after --, as in `airunner submit REPOSITORY -- make test`, "
            "or name it with --command or in the --config file"
        )
    return {name: value for name, value in fields.items() if value is not None}


def hints_of(options: Mapping[str, Given]) -> list[str]:
    """Return a hint for each option whose value looks like a list but is one literal value."""
    looks = {Form.PAIRS: pairs_hint, Form.WORDS: words_hint}
    hints = [
        looks[field.form](field.flag, _words(options, field.name)) for field in FIELDS.values() if field.form in looks
    ]
    return [hint for hint in hints if hint is not None]


def pairs_of(flag: str, pairs: Sequence[str]) -> dict[str, str]:
    """Parse the names and values of `flag`. Raises `OperatorError` for a value that is not NAME=VALUE."""
    if wrong := [pair for pair in pairs if pair.find("=") < 1]:
        raise OperatorError(f"{flag} {wrong[0]!r}: expected NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _given(field: Field, options: Mapping[str, Given]) -> object:
    """Return a field's value from the options, as a job file would have it; None: not given. Raises `OperatorError`."""
    value: object = options.get(field.name)
    if isinstance(value, str):
        value = word_of_option(value)
    elif field.form is Form.PAIRS:
        value = pairs_of(field.flag, _words(options, field.name)) or None
    elif field.form is Form.WORDS:
        value = _words(options, field.name) or None
    parts: dict[str, object] = {}
    for more in field.more:
        given = options.get(more.name)
        if given and more.means:
            value = more.means
        elif given and value is None:
            raise OperatorError(f"{more.flag} needs {field.flag} too")
        elif given:
            parts[more.part] = given
    return {field.part: value, **parts} if parts else value


def _words(options: Mapping[str, Given], name: str) -> list[str]:
    """List the values of an option that may be repeated."""
    words = options.get(name) or []
    assert isinstance(words, list), f"the option {name} is not repeatable"
    return words


def _command_and_repository(
    options: Mapping[str, Given], operands: Sequence[str], words: Sequence[str] | None
) -> Iterator[tuple[str, object]]:
    """Make fields of the words before and after `--`."""
    if len(operands) > 1:
        raise OperatorError(
            f"{operands[1]!r} is one word too many: put -- before the command, "
            f"as in `airunner submit {operands[0]} -- {' '.join(operands[1:])}`"
        )
    if words and (options.get("command") is not None or options.get("args")):
        raise OperatorError("give the command either after -- or with --command and --args, not both")
    if words:
        yield from (("command", words[0]), ("args", tuple(words[1:])))
    if operands:
        yield "repository", operands[0]


def _repository(given: str) -> str:
    """Resolve a folder of this machine to its absolute path, since the agent runs elsewhere; keep a URL."""
    return str(Path(given).resolve()) if Path(given).is_dir() else given
