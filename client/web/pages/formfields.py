"""Form of a new job: its controls, made from the table of job fields, and the job that is read from them. Pure.

```
 FIELDS ──► controls, in groups ──► HTML form ──► texts ──► read as in a job file ──► JobSpec, or what is wrong where
                                                      └──► the same job as `airunner submit …`
```

A list has one item in each line, and so have pairs NAME=VALUE. A new field of the table comes into the form by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Struct

from airunner.client.cli.notation import UnfitError, read
from airunner.client.cli.request import commit_refusal
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import FIELDS, JobSpec
from airunner.protocol.form import Field, Form
from airunner.protocol.gitaddress import BadAddress, split_address
from airunner.protocol.job import check_new, encode_spec
from airunner.protocol.listhint import command_hint
from airunner.protocol.misfits import field_error
from airunner.protocol.printable import shell_line

GROUPS: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "Command": ("command", "args", "name", "queue"),
        "Checkout": ("repository", "branch", "commit", "ref", "depth", "submodules", "dissociate", "working_directory"),
        "Environment and secrets": ("environment", "secrets", "secret_files", "no_redact"),
        "Console": ("process_type", "terminal", "merge_output"),
        "Files": ("artifacts", "artifact_required", "caches", "returns", "keep", "keep_every_seconds"),
        "Limits and retries": ("timeout_seconds", "retry", "max_attempts", "cancel_signal", "expires"),
        "When and where": ("priority", "not_before_ms", "after", "require"),
        "Notes": ("owner", "metadata"),
    }
)
"""Fields of each group; a field that is in none comes last, in a group of its own."""
OPEN: Final = ("Command", "Checkout")  # groups that are shown without a click
_OTHERS: Final = "More"
_LISTS: Final = (Form.WORDS, Form.PAIRS, Form.CACHES)
_KINDS: Final = {Form.NUMBER: "number", Form.CHOICE: "select", Form.SIGNAL: "select", Form.SWITCH: "checkbox"}
_STAND_INS: Final = {"command": "true", "repository": "https://example.org/x.git"}
_RELATIVE: Final = "expected a URL with its scheme, or the whole path of a folder on the agents' machines"

Texts = Mapping[str, str]
"""What the form has in each control, by name."""


class Control(Struct, frozen=True):
    """Control of the form: a field, or a part of one, such as the failures that are retried."""

    name: str
    label: str
    help: str
    field: Field
    kind: str  # text, number, select, checkbox, lines

    @property
    def choices(self) -> Sequence[str]:
        """Values to choose from."""
        return self.field.choices

    @property
    def unset(self) -> str:
        """What an empty control means."""
        return self.field.unset


def controls() -> Mapping[str, Sequence[Control]]:
    """Make the controls of each group."""
    grouped = {name for names in GROUPS.values() for name in names}
    others = tuple(name for name in FIELDS if name not in grouped)
    groups = {**GROUPS, **({_OTHERS: others} if others else {})}
    return {
        title: [control for name in names for control in _controls(FIELDS[name])] for title, names in groups.items()
    }


def _controls(field: Field) -> Iterator[Control]:
    kind = "lines" if field.form in _LISTS else _KINDS.get(field.form, "text")
    yield Control(field.name, field.label, field.help, field, kind)
    for more in field.more:
        if more.part:
            yield Control(more.name, more.name.replace("_", " "), more.help, more, "text")


NAMES: Final = tuple(control.name for group in controls().values() for control in group)
"""Names of all controls."""


class Draft(Struct, frozen=True):
    """Draft of a job: its spec, or else the problem of each control that does not fit."""

    spec: JobSpec | None
    problems: Mapping[str, str]


def draft_of(texts: Texts, now_ms: int) -> Draft:
    """Read the form. A time such as +10m counts from `now_ms`."""
    fields: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for field in FIELDS.values():
        try:
            value = read(field, _written(field, texts), now_ms)
        except UnfitError as error:
            parts = {more.part: more.name for more in field.more}
            problems[parts.get(error.part, field.name)] = error.problem
        except OperatorError as error:
            problems[field.name] = error.message
        else:
            if value is not None:
                fields[field.name] = value
    if "command" not in fields:
        problems["command"] = "this is missing"
    return _checked(fields, {**problems, **dict(_refused(fields))})


def _checked(fields: dict[str, Any], problems: dict[str, str]) -> Draft:
    """Make the job of the fields; or find each that does not fit, beside those that are known not to.

    A field that does not fit is left out to find the next one. One that others need has a stand-in then.
    """
    while True:
        fitting = {name: value for name, value in fields.items() if name not in problems}
        fitting |= {name: value for name, value in _STAND_INS.items() if name in problems}
        try:
            spec = msgspec.convert(fitting, JobSpec)
            encode_spec(spec)
            check_new(spec)
        except ValueError as error:
            misfit = field_error(error, JobSpec, fitting)
            if misfit is None or misfit.field in problems:
                return Draft(None, problems or {"": str(error)})
            problems[misfit.field] = misfit.problem
        else:
            return Draft(None, problems) if problems else Draft(spec, {})


def _written(field: Field, texts: Texts) -> object:
    """Return a field's value as a job file would have it."""
    text = texts.get(field.name, "")
    match field.form:
        case Form.SWITCH:
            return bool(text)
        case Form.WORDS | Form.CACHES:
            return _lines(text)
        case Form.PAIRS:
            return dict(map(_pair, filter(None, _lines(text))))
        case Form.RETRY:
            parts = {field.part: text.strip()}
            parts |= {more.part: texts.get(more.name, "").strip() for more in field.more if more.part}
            return {part: value for part, value in parts.items() if value}
        case _:
            return text.strip()


def _lines(text: str) -> list[str]:
    """Split a text into its lines, without those at its end that are empty."""
    text = text.rstrip("\n")
    return text.split("\n") if text else []


def _pair(line: str) -> tuple[str, str]:
    name, equals, value = line.partition("=")
    if not name or not equals:
        raise OperatorError(f"expected NAME=VALUE in each line, not {line!r}")
    return name, value


def _refused(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Refuse what `airunner submit` refuses too: names as a commit, and a folder that is relative to nothing.

    Also a command that is several words: who has typed it expects a shell.
    """
    if hint := command_hint(fields.get("command", "")):
        yield "command", hint
    commit: str = fields.get("commit", "")
    if reason := commit_refusal(commit):
        yield "commit", reason.removeprefix(f"--commit {commit!r}: ")
    try:
        address = split_address(fields["repository"]) if "repository" in fields else None
    except BadAddress:
        return  # refused with the other fields, in words that show none of it
    if address is not None and not (address.scheme or address.host or address.path.startswith("/")):
        yield "repository", _RELATIVE


def submit_line(texts: Texts) -> str:
    """Return the command that submits what the form has."""
    words = ["airunner", "submit"]
    for group in controls().values():
        for control in group:
            text = texts.get(control.name, "")
            if not control.field.flag.startswith("--") or control.name in ("command", "args") or not text.strip():
                continue
            words += _option(control, text)
    if repository := texts.get("repository", "").strip():
        words.append(repository)
    words += ["--", texts.get("command", "").strip(), *_lines(texts.get("args", ""))]
    return shell_line(words)


def _option(control: Control, text: str) -> Iterator[str]:
    """Yield the words of an option; those that are set to their default are left out."""
    field = control.field
    if control.kind == "checkbox":
        yield field.flag
        return
    values = [line for line in _lines(text) if line] if control.kind == "lines" else [text.strip()]
    for value in values:
        if control.kind == "select" and value == field.unset:
            continue
        yield from ([f"{field.flag}={value}"] if value.startswith("-") else [field.flag, value])
