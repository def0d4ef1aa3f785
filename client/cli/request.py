"""Job request of `airunner submit` and `run`: the job file, options that override it, and words around `--`."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from airunner.client.cli.jobfile import JobDocument, fields_in, read_bounded
from airunner.client.cli.notation import UnfitError, is_mapping, read
from airunner.client.cli.options import ENV_FILE, Given
from airunner.client.cli.sources import Sources
from airunner.protocol.envfile import ENV_FILE_BYTES_MAX, ENV_FILE_LAYOUT, variable_of, variables_in
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import FIELDS
from airunner.protocol.form import Field, Form
from airunner.protocol.gitaddress import BadAddress, is_ref_name, split_address
from airunner.protocol.listhint import pairs_hint, words_hint

HASH_CHARS_MIN: Final = 7  # of an abbreviated commit: git itself shows at least as many
HEAD: Final = "HEAD"
_HASH: Final = re.compile(rf"[0-9a-fA-F]{{{HASH_CHARS_MIN},64}}")
_SHORT_HASH: Final = re.compile(r"[0-9a-fA-F]{4,}")


def fields_of(
    options: Mapping[str, Given],
    operands: Sequence[str] = (),
    words: Sequence[str] | None = None,
    config: JobDocument | None = None,
    now_ms: int = 0,
    sources: Sources | None = None,
    base: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Merge the job's fields from file, options and operands; an option that is empty or 0 unsets the file's value.

    `base` has the fields of another job, in place of a file.

    `options` are those of `options.with_job_options`; `operands` are the words before `--`, `words` the words after it.
    Environment, metadata and required tags are merged name by name. A time such as +10m counts from `now_ms`. `sources`
    notes where each field is from. Raises `OperatorError` for arguments that contradict each other or name no command.
    """
    sources = sources or Sources()
    fields: dict[str, Any] = fields_in(config, now_ms, sources) if config is not None else {**(base or {})}
    overrides = config is not None or base is not None
    for field in FIELDS.values():
        if (given := _given(field, options, sources)) is None:
            continue
        if not overrides:
            _refuse_empty(field.flag, given)
        fields[field.name] = _merged(field, fields.get(field.name), given, now_ms, sources)
    for weaker in ("ref", "branch"):
        if options.get(weaker):  # overrides what the file checks out, even if it does so by another field
            for name in {"commit", "ref", "branch"} - {weaker}:
                if not options.get(name):
                    fields.pop(name, None)
    if operands and not overrides:
        _refuse_empty(FIELDS["repository"].flag, operands[0])
    fields |= _command_and_repository(options, operands, words, sources)
    if reason := commit_refusal(str(options.get("commit") or "")):
        raise OperatorError(reason)
    if words and not words[0]:
        raise OperatorError(f"the command after -- is empty: name a program, as in `{sources.program} -- make test`")
    if not fields.get("command"):
        raise OperatorError(
            f"there is no command to run: put it after --, as in `{sources.program} REPOSITORY -- make test`, "
            "or name it with --command or in the --config file"
        )
    if fields.get("repository"):
        fields["repository"] = _repository(str(fields["repository"]))
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


def _refuse_empty(label: str, given: object) -> None:
    """Refuse a value that is empty, as `"$UNSET"` is, where it overrides no job file. Raises `OperatorError`."""
    if given == "":
        raise OperatorError(f"{label} is empty: give a value, or leave it out")


def _merged(field: Field, earlier: Any, given: object, now_ms: int, sources: Sources) -> Any:  # noqa: ANN401 - as read
    """Read the value that options give to a field, and merge it with the `earlier` value if it has pairs."""
    if is_mapping(given) and field.form is Form.PAIRS:
        pairs: dict[object, object] = {**(earlier or {}), **given}
        return {name: value for name, value in pairs.items() if value is not None}
    try:
        found = read(field, given, now_ms)
    except UnfitError as error:
        flags = {more.part: more.flag for more in field.more}
        raise OperatorError(f"{flags.get(error.part, field.flag)}: {error.problem}") from error
    except OperatorError as error:
        raise OperatorError(f"{field.flag}: {error.message}") from error
    sources.note_option(field.name, field.flag)
    return found


def _given(field: Field, options: Mapping[str, Given], sources: Sources) -> object:
    """Return a field's value from the options, as a job file would have it; None: not given. Raises `OperatorError`."""
    value: object = options.get(field.name)
    if field.name == "environment":
        value = _environment(field, options, sources) or None
    elif field.form is Form.PAIRS:
        value = pairs_of(field.flag, _words(options, field.name)) or None
        sources.note_option(field.name, field.flag, value or ())
    elif field.form in (Form.WORDS, Form.CACHES):
        value = _words(options, field.name) or None
    parts: dict[str, object] = {}
    for more in field.more:
        given = options.get(more.name)
        if given and more.means:
            if value not in (None, more.means):
                raise OperatorError(f"{more.flag} contradicts {field.flag} {value}: give only one of them")
            value = more.means
        elif given and more.part:
            if value is None:
                raise OperatorError(f"{more.flag} needs {field.flag} too")
            parts[more.part] = given
    return {field.part: value, **parts} if parts else value


def _environment(field: Field, options: Mapping[str, Given], sources: Sources) -> dict[str, str | None]:
    """Return the variables of --env-file, overridden by --env; None: the variable is not set here."""
    found: dict[str, str | None] = {}
    for file in _words(options, ENV_FILE):
        raw = read_bounded("--env-file", file, ENV_FILE_BYTES_MAX, ENV_FILE_LAYOUT)
        variables = variables_in(raw, file, os.environ)
        found |= variables
        sources.note_option(field.name, f"--env-file {file}", variables)
    for word in _words(options, field.name):
        try:
            name, value = variable_of(word, os.environ)
        except OperatorError as error:
            raise OperatorError(f"{field.flag} {word!r}: {error.message}") from error
        found[name] = value
        sources.note_option(field.name, field.flag, [name])
    for name in [name for name, value in found.items() if value is None]:
        sources.hints.append(f"{sources.label(field.name, name)}: {name} is not set here, so the job does not get it")
    return found


def _words(options: Mapping[str, Given], name: str) -> list[str]:
    """List the values of an option that may be repeated."""
    words = options.get(name) or []
    assert isinstance(words, list), f"the option {name} is not repeatable"
    return words


def _command_and_repository(
    options: Mapping[str, Given], operands: Sequence[str], words: Sequence[str] | None, sources: Sources
) -> Iterator[tuple[str, object]]:
    """Make fields of the words before and after `--`."""
    if len(operands) > 1 and words is not None:
        raise OperatorError(f"{operands[1]!r} is one word too many before --: only a repository is named there")
    if len(operands) > 1:
        raise OperatorError(
            f"{operands[1]!r} is one word too many: put -- before the command, "
            f"as in `{sources.program} {operands[0]} -- {' '.join(operands[1:])}`"
        )
    if words and (options.get("command") is not None or options.get("args")):
        raise OperatorError("give the command either after -- or with --command and --args, not both")
    if words:
        sources.note_option("command", "the command after --")
        sources.note_option("args", "the arguments after --")
        yield from (("command", words[0]), ("args", tuple(words[1:])))
    if operands:
        sources.note_option("repository", FIELDS["repository"].flag)
        yield "repository", operands[0]


def commit_refusal(commit: str) -> str | None:
    """Return the reason why a `--commit` is no hash, and what to give instead; None: it is one, or HEAD.

    Job files of other runners have names there, and agents understand these: a branch, a tag or a full ref.
    """
    if commit in ("", HEAD) or _HASH.fullmatch(commit):
        return None
    if _SHORT_HASH.fullmatch(commit):
        instead = f"give more of its digits, or a branch or tag with --branch {commit}"
    elif commit.startswith("refs/"):
        instead = f"give a ref with --ref {commit}"
    elif is_ref_name(commit):
        instead = f"give a branch or tag with --branch {commit}, or exactly one of them with --ref refs/tags/{commit}"
    else:
        instead = f"give what `git rev-parse {shlex.quote(commit)}` prints"
    return f"--commit {commit!r}: a commit is a hash of {HASH_CHARS_MIN} to 64 hexadecimal digits, or HEAD; {instead}"


def _repository(given: str) -> str:
    """Resolve a folder or bundle of this machine to its absolute path, since the agent runs elsewhere; keep a URL.

    Raises `OperatorError`: a relative path leads to nothing.
    """
    with suppress(OSError):  # a name too long for a file
        if "://" not in given and Path(given).exists():
            return str(Path(given).resolve())
    try:
        address = split_address(given)
    except BadAddress:
        return given  # refused with the other fields, in words that show none of it
    if address.scheme or address.host or given.startswith("/"):
        return given
    raise OperatorError(f"{address.redacted!r} is no folder and no bundle here: give a path, or a URL with its scheme")
