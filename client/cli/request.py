"""What `airunner submit` asks for: the job file, the flags that beat it, and the words after `--`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from airunner.client.cli.instants import instant_ms
from airunner.client.cli.jobfile import BACKOFF_S_MAX, read_job_file
from airunner.client.cli.retrying import retry_policy
from airunner.protocol.durations import duration_ms, of_flag, whole_seconds
from airunner.protocol.errors import OperatorError
from airunner.protocol.job import TERMINAL_SIDE_MAX, TerminalSize
from airunner.protocol.listhint import pairs_hint, words_hint

_SIZE: Final = re.compile(r"([0-9]{1,5})x([0-9]{1,5})", re.ASCII)


class SubmitFlags(Struct, frozen=True, kw_only=True):
    """The words of one command line; None: a flag was not given; empty or 0: what the file says is unset."""

    config: Path | None = None
    operands: Sequence[str] = ()
    words: Sequence[str] | None = None
    command: str | None = None
    args: Sequence[str] = ()
    queue: str | None = None
    process_type: str | None = None
    terminal: str | None = None
    depth: int | None = None
    submodules: bool | None = None
    require: Sequence[str] = ()
    timeout: str | None = None
    working_directory: str | None = None
    env: Sequence[str] = ()
    secrets: Sequence[str] = ()
    secret_files: Sequence[str] = ()
    metadata: Sequence[str] = ()
    commit: str | None = None
    branch: str | None = None
    owner: str | None = None
    priority: int | None = None
    not_before: str | None = None
    max_attempts: int | None = None
    retry: int | None = None
    retry_on: Sequence[str] = ()
    retry_backoff: str | None = None


def fields_of(flags: SubmitFlags, now_ms: int = 0) -> dict[str, Any]:
    """The fields of `JobSpec` that were asked for; environment, metadata and required tags are merged name by name.

    A time from now counts from `now_ms`.

    Raises `OperatorError` for words that contradict each other or lead to no command.
    """
    fields = read_job_file(flags.config, now_ms) if flags.config is not None else {}
    fields |= _given(flags) | _timing(flags, now_ms)
    fields = {field: value for field, value in fields.items() if value != "" and (value != 0 or value is False)}
    for field, flag, pairs in (
        ("environment", "--env", flags.env),
        ("metadata", "--metadata", flags.metadata),
        ("require", "--require", flags.require),
    ):
        if pairs:
            from_file = fields.get(field, {})
            assert isinstance(from_file, dict), "the job file was checked"
            fields[field] = {**from_file, **pairs_of(flag, pairs)}
    if "repository" in fields:
        fields["repository"] = _repository(str(fields["repository"]))
    if not fields.get("command"):
        raise OperatorError(
            "there is no command to run: put it behind --, as in `airunner submit REPOSITORY -- make test`, "
            "or name it with --command or in the --config file"
        )
    return fields


def _given(flags: SubmitFlags) -> dict[str, object]:
    """The fields that flags and operands give by themselves."""
    if len(flags.operands) > 1:
        raise OperatorError(
            f"{flags.operands[1]!r} is one word too many: put -- before the command, "
            f"as in `airunner submit {flags.operands[0]} -- {' '.join(flags.operands[1:])}`"
        )
    if flags.words and (flags.command is not None or flags.args):
        raise OperatorError("give the command either behind -- or with --command and --args, not both")
    fields: dict[str, object] = {
        field: value
        for field in (
            "command",
            "queue",
            "process_type",
            "working_directory",
            "commit",
            "branch",
            "owner",
            "priority",
            "max_attempts",
            "depth",
            "submodules",
        )
        if (value := getattr(flags, field)) is not None
    }
    if flags.terminal is not None:
        fields["terminal"] = terminal_size(flags.terminal) if flags.terminal else TerminalSize()
    if flags.secrets:
        fields["secrets"] = tuple(flags.secrets)
    if flags.secret_files:
        fields["secret_files"] = tuple(flags.secret_files)
    if flags.args:
        fields["args"] = tuple(flags.args)
    if flags.words:
        fields |= {"command": flags.words[0], "args": tuple(flags.words[1:])}
    if flags.operands:
        fields["repository"] = flags.operands[0]
    return fields


def _timing(flags: SubmitFlags, now_ms: int) -> dict[str, object]:
    """The fields that say when the job is run, for how long, and whether again."""
    fields: dict[str, object] = {}
    if flags.timeout is not None:
        fields["timeout_seconds"] = of_flag("--timeout-seconds", whole_seconds, flags.timeout or "0")
    if flags.not_before is not None:
        fields["not_before_ms"] = instant_ms(flags.not_before, now_ms) if flags.not_before else None
    if flags.retry:
        backoff_ms = of_flag("--retry-backoff", duration_ms, flags.retry_backoff) if flags.retry_backoff else None
        backoff_s = None if backoff_ms is None else backoff_ms / 1_000
        if backoff_s is not None and backoff_s > BACKOFF_S_MAX:
            raise OperatorError(f"--retry-backoff {flags.retry_backoff}: expected up to {BACKOFF_S_MAX} s")
        fields["retry"] = retry_policy(flags.retry, flags.retry_on, backoff_s)
    elif flags.retry_on or flags.retry_backoff:
        raise OperatorError("--retry-on and --retry-backoff need --retry, which says how often")
    elif flags.retry == 0:
        fields["retry"] = None
    return fields


def hints_of(flags: SubmitFlags) -> list[str]:
    """What looks like a list and is taken literally."""
    pairs = (("--env", flags.env), ("--metadata", flags.metadata), ("--require", flags.require))
    words = (("--args", flags.args), ("--secret", flags.secrets))
    hints = [pairs_hint(flag, given) for flag, given in pairs] + [words_hint(flag, given) for flag, given in words]
    return [hint for hint in hints if hint is not None]


def pairs_of(flag: str, pairs: Sequence[str]) -> Mapping[str, str]:
    """Names and values as `flag` was given them.

    Raises `OperatorError` for one that is not NAME=VALUE.
    """
    split = [pair.partition("=") for pair in pairs]
    for pair, (name, equals, _) in zip(pairs, split, strict=True):
        if not name or not equals:
            raise OperatorError(f"{flag} {pair!r}: expected NAME=VALUE")
    return {name: value for name, _, value in split}


def terminal_size(text: str) -> TerminalSize:
    """The size that `COLSxROWS` says.

    Raises `OperatorError`.
    """
    found = _SIZE.fullmatch(text)
    if found is None or not all(1 <= int(side) <= TERMINAL_SIDE_MAX for side in found.groups()):
        raise OperatorError(f"--terminal {text!r}: expected COLSxROWS such as 120x40, each up to {TERMINAL_SIDE_MAX}")
    return TerminalSize(cols=int(found[1]), rows=int(found[2]))


def _repository(given: str) -> str:
    """A folder of this machine by its absolute path, since the agent stands elsewhere; a URL as it is."""
    if given and Path(given).is_dir():
        return str(Path(given).resolve())
    return given
