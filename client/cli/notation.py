"""Notation of field values: what people write in an option or a job file, and how `show` prints it.

Each `Form` of `protocol/fields.py` has a reader and a printer. In a field of text, a word is that text, whatever it
means in YAML: `no`, `1.10`, `2026-01-31`. An empty or zero value leaves the field unset.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final, TypeGuard

import msgspec

from airunner.client.cli.instants import MS_DIGITS_MIN, Side, instant_ms
from airunner.client.cli.wording import duration_text, instant_text
from airunner.client.cli.written import line_of, meaning_of
from airunner.protocol.caches import LABEL_DEFAULT, PRESETS, Cache, SaveWhen
from airunner.protocol.durations import TooLongError, duration_ms, whole_seconds
from airunner.protocol.errors import OperatorError
from airunner.protocol.expiry import Expiry
from airunner.protocol.fields import JobSpec, TerminalSize, in_words
from airunner.protocol.fieldtypes import TERMINAL_SIDE_MAX
from airunner.protocol.form import Field, Form
from airunner.protocol.job import Reason
from airunner.protocol.jobretry import BACKOFF_MAX_MS_DEFAULT, BACKOFF_MS_DEFAULT, RETRIES_MAX, RetryOn, RetryPolicy
from airunner.protocol.misfits import misfit_in
from airunner.protocol.names import nearest

BACKOFF_S_MAX: Final = 86_400  # a day
BACKOFF_EXPECTED: Final = f"a number of seconds up to {BACKOFF_S_MAX}, or a duration such as 1m30s"
EXIT_CODE_MAX: Final = 255
RETRYABLE: Final = tuple(
    reason for reason in Reason if reason not in (Reason.EXIT_CODE, Reason.CANCELLED, Reason.EXPIRED, Reason.SKIPPED)
)
_FAILURES: Final = f"an exit code, a signal such as SIGKILL, or a reason: {', '.join(RETRYABLE)}"
TEXT_SHOWN_CHARS: Final = 40  # of a refused value
_SIZE: Final = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", re.ASCII)
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)", re.ASCII)
_RETRY_KEYS: Final = ("limit", "on", "backoff", "maxBackoff")


class _MisfitError(Exception):
    """Misfit error: the value does not have the form of its field."""


class UnfitError(OperatorError):
    """Part of a value that does not fit: the `problem`, the `part` of a mapping, and its `line` in a job file or 0."""

    def __init__(self, problem: str, value: object = None, part: str = "") -> None:
        super().__init__(f"{part}: {problem}" if part else problem)
        self.problem = problem
        self.line = line_of(value)
        self.part = part


def read(field: Field, value: object, now_ms: int) -> object:
    """Parse a field's value; None: not set. A time such as +10m counts from `now_ms`. Raises `OperatorError`."""
    if is_empty(value):
        return None
    try:
        found = _found(field, value, now_ms)
    except _MisfitError:
        raise OperatorError(f"expected {field.expected}, not {kind_of(value)}") from None
    return None if found == 0 and not isinstance(found, bool) else found


def lines_of(field: Field, spec: JobSpec) -> Sequence[str]:
    """Format the lines of a field in `show`, with `Field.show` if it is set; without it, a default has no lines."""
    if field.show is not None:
        return [field.show(spec)]
    value = getattr(spec, field.name)
    return [] if value == field.default else _PRINTERS.get(field.form, lambda value: [in_words(value)])(value)


def policy_text(policy: RetryPolicy) -> str:
    """Format a retry policy in words."""
    text = f"up to {policy.limit} times, first after {policy.backoff_ms / 1_000:g} s"
    if policy.on is None:
        return text
    ends = [f"exit code {code}" for code in policy.on.exit_codes] + [f"signal {number}" for number in policy.on.signals]
    ends += policy.on.reasons
    return f"{text}, on {', '.join(ends)}"


def is_empty(value: object) -> bool:
    """Check for an empty value: null, empty text, an empty list or mapping."""
    return meaning_of(value) is None or value in ("", [], {})


def is_mapping(value: object) -> TypeGuard[dict[object, object]]:
    """Check for a mapping of YAML."""
    return isinstance(value, dict)


def kind_of(value: object) -> str:
    """Name the kind of `value`, in the words of YAML."""
    match meaning_of(value):
        case None:
            return "nothing"
        case bool(truth):
            return "true" if truth else "false"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case str(text) if _DECIMAL.fullmatch(text):
            return f"the number {text[:TEXT_SHOWN_CHARS]}"
        case text:
            return f"the text {str(text)[:TEXT_SHOWN_CHARS]!r}"


def _found(field: Field, value: object, now_ms: int) -> object:
    match field.form:
        case Form.INSTANT:
            return instant_ms(_text(value), Side.FUTURE, now_ms)
        case Form.EXPIRY:
            return _expiry(_text(value), now_ms)
        case Form.CHOICE:
            return _choice(field, _text(value))
        case Form.SIGNAL:
            return _choice(field, _text(value).upper().removeprefix("SIG"))
        case Form.NUMBER:
            return _whole(value, field.bounds)
        case form:
            return _READERS[form](value)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _MisfitError
    return str(value)


def _word(value: object, what: str) -> str:
    """Read text as it is written; but YAML's `null` is refused, because it is rarely meant as text."""
    if not isinstance(value, str) or meaning_of(value) is None:
        hint = "; put it in quotes" if isinstance(value, str) else ""
        raise UnfitError(f"{what}: expected text, not {kind_of(value)}{hint}", value)
    return str(value)


def _choice(field: Field, text: str) -> str:
    """Read one of the field's choices, in capitals or not."""
    for choice in field.choices:
        if choice.lower() == text.lower():
            return choice
    raise _MisfitError


def _words(value: object) -> tuple[str, ...]:
    if not _is_list(value):
        raise _MisfitError
    return tuple(_word(word, f"item {number}") for number, word in enumerate(value, 1))


def _pairs(value: object) -> dict[str, str]:
    if not is_mapping(value):
        raise _MisfitError
    return {str(name): "" if text == "" else _word(text, str(name)) for name, text in value.items()}


def _seconds(value: object) -> int:
    try:
        return whole_seconds(_text(value))
    except TooLongError:
        raise
    except OperatorError:
        raise _MisfitError from None


def _expiry(text: str, now_ms: int) -> Expiry | None:
    """Read a duration or an instant; an instant that is past is refused, since a job that begins at once would run."""
    with suppress(OperatorError):
        if not (text.isdecimal() and len(text) >= MS_DIGITS_MIN):
            after_ms = duration_ms(text.removeprefix("+"))
            return Expiry(after_ms=after_ms) if after_ms else None
    at_ms = instant_ms(text, Side.FUTURE, now_ms, Form.EXPIRY.expected)
    if at_ms <= now_ms:
        raise OperatorError(f"{text!r} is past; it is {instant_text(now_ms)} now")
    return Expiry(at_ms=at_ms)


def _expiry_text(expires: Expiry) -> str:
    if expires.after_ms is None:
        return instant_text(expires.at_ms)
    return f"{duration_text(expires.after_ms)} after its submission"


def _whole(value: object, bounds: tuple[int, int] | None = None) -> int:
    """Parse a whole number in decimal digits; 0 may be out of bounds, because it leaves the field unset."""
    text = str(value)
    number = int(text) if isinstance(value, str) and _WHOLE.fullmatch(text) else None
    if number is None or (bounds and number and not bounds[0] <= number <= bounds[1]):
        raise _MisfitError
    return number


def _yes_or_no(value: object) -> bool:
    meant = meaning_of(value)
    if not isinstance(meant, bool):
        raise _MisfitError
    return meant


def _backoff_ms(value: object, part: str, default_ms: int) -> int:
    if is_empty(value):
        return default_ms
    with suppress(OperatorError, _MisfitError):
        ms = duration_ms(_text(value))
        if ms <= BACKOFF_S_MAX * 1_000:
            return ms
    raise UnfitError(f"expected {BACKOFF_EXPECTED}, not {kind_of(value)}", value, part)


def _retry(value: object) -> RetryPolicy | None:
    mapping: Mapping[object, object] = value if is_mapping(value) else {"limit": value}
    _refuse_other_keys(mapping, _RETRY_KEYS)
    if "limit" not in mapping:
        raise UnfitError("limit is missing: how many times to run a failed job again")
    given = mapping["limit"]
    try:
        limit = _whole(given, (1, RETRIES_MAX))
    except _MisfitError:
        if mapping is not value:
            raise
        raise UnfitError(f"expected a number up to {RETRIES_MAX}, not {kind_of(given)}", given, "limit") from None
    on = _ends(mapping.get("on"))
    backoff_ms = _backoff_ms(mapping.get("backoff"), "backoff", BACKOFF_MS_DEFAULT)
    backoff_max_ms = _backoff_ms(mapping.get("maxBackoff"), "maxBackoff", max(BACKOFF_MAX_MS_DEFAULT, backoff_ms))
    return RetryPolicy(limit=limit, backoff_ms=backoff_ms, backoff_max_ms=backoff_max_ms, on=on) if limit else None


def _ends(value: object) -> RetryOn | None:
    """Read the failures to retry; None: every failure."""
    if meaning_of(value) is None:
        return None
    try:
        return _retry_on(value)
    except _MisfitError:
        raise UnfitError(f"expected {_FAILURES}, not {kind_of(value)}", value, "on") from None
    except OperatorError as error:
        raise UnfitError(error.message, value, "on") from error


def _retry_on(value: object) -> RetryOn:
    """Read the failures to retry. None at all is refused: without `on` every failure is retried."""
    codes, signals, reasons = list[int](), list[int](), list[str]()
    words = _words([value] if isinstance(value, str) else value)
    for end in " ".join(words).replace(",", " ").split():
        reason = end.lower().replace("_", "-")
        if _WHOLE.fullmatch(end):
            codes.append(int(end))
        elif reason in RETRYABLE:
            reasons.append(reason)
        elif (name := f"SIG{end.upper().removeprefix('SIG')}") in signal.Signals.__members__:
            signals.append(signal.Signals[name].value)
        else:
            raise OperatorError(f"{end!r} is not {_FAILURES}")
    if wrong := [code for code in codes if not 1 <= code <= EXIT_CODE_MAX]:
        raise OperatorError(f"{wrong[0]} is not an exit code of a failure; those are 1 to {EXIT_CODE_MAX}")
    if not (codes or signals or reasons):
        raise OperatorError(f"no failure is named; expected {_FAILURES}")
    return RetryOn(exit_codes=tuple(codes), signals=tuple(signals), reasons=tuple(reasons))


def _terminal(value: object) -> TerminalSize:
    if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
        value = {"cols": found[1], "rows": found[2]}
    if not is_mapping(value):
        raise _MisfitError
    _refuse_other_keys(value, TerminalSize.__struct_fields__)
    sides = {str(key): _side(side, str(key)) for key, side in value.items() if not is_empty(side)}
    return TerminalSize(**{key: side for key, side in sides.items() if side})


def _caches(value: object) -> tuple[Cache, ...]:
    return tuple(map(_cache, value if _is_list(value) else [value]))


def _cache(value: object) -> Cache:
    """Read a cache: the name of a known tool's, NAME@LABEL:PATH,PATH:FILE,FILE, or a mapping."""
    given: Mapping[object, object] = value if is_mapping(value) else _cache_parts(_word(value, "a cache"))
    _refuse_other_keys(given, Cache.__struct_fields__)
    fields: dict[str, Any] = {str(key): part for key, part in given.items() if not is_empty(part)}
    for part in ("paths", "key"):
        if part in fields:
            fields[part] = _words([fields[part]] if isinstance(fields[part], str) else fields[part])
    fields |= {name: _word(fields[name], name) for name in ("name", "label", "save") if name in fields}
    if "restore" in fields:
        fields["restore"] = _yes_or_no(fields["restore"])
    known = PRESETS.get(str(fields.get("name")))
    if "paths" not in fields:
        if known is None:
            raise UnfitError(f"expected {', '.join(PRESETS)}, or a NAME:PATH, not {fields.get('name')!r}", value)
        fields = {"paths": known.paths, "key": known.key, **fields}
    if (misfit := misfit_in(Cache, fields)) is not None:
        raise UnfitError(f"{misfit.field}: {misfit.problem}", value)
    return msgspec.convert(fields, Cache)


def _cache_parts(text: str) -> dict[object, object]:
    name, _, rest = text.partition(":")
    name, _, label = name.partition("@")
    paths, _, key = rest.partition(":")
    return {"name": name, "label": label, "paths": _listed(paths), "key": _listed(key)}


def _listed(text: str) -> list[str]:
    return text.split(",") if text else []


def _cache_text(cache: Cache) -> str:
    """Format a cache in words."""
    parts = [f"{cache.name}: {' '.join(cache.paths)}"]
    parts += [f"key {' '.join(cache.key)}"] if cache.key else []
    parts += [f"label {cache.label}"] if cache.label != LABEL_DEFAULT else []
    parts += [] if cache.restore else ["not restored"]
    parts += {SaveWhen.ON_SUCCESS: [], SaveWhen.ALWAYS: ["always saved"], SaveWhen.NEVER: ["never saved"]}[cache.save]
    return ", ".join(parts)


def _refuse_other_keys(mapping: Mapping[object, object], keys: Sequence[str]) -> None:
    if unknown := [key for key in mapping if key not in keys]:
        raise UnfitError(unknown_key(unknown[0], keys), unknown[0])


def unknown_key(key: object, keys: Sequence[str]) -> str:
    """Return the message that there is no such key: with the one that it most likely means, or else with all."""
    near = nearest(str(key), keys)
    return f"unknown key {str(key)!r}; " + (f"did you mean {near}?" if near else f"the keys are {', '.join(keys)}")


def _side(value: object, part: str) -> int:
    try:
        return _whole(value, (1, TERMINAL_SIDE_MAX))
    except _MisfitError:
        problem = f"expected a whole number from 1 to {TERMINAL_SIDE_MAX}, not {kind_of(value)}"
        raise UnfitError(problem, value, part) from None


_READERS: Final[Mapping[Form, Callable[[object], Any]]] = MappingProxyType(
    {
        Form.TEXT: _text,
        Form.SWITCH: _yes_or_no,
        Form.WORDS: _words,
        Form.PAIRS: _pairs,
        Form.DURATION: _seconds,
        Form.SIZE: _terminal,
        Form.RETRY: _retry,
        Form.CACHES: _caches,
    }
)
_PRINTERS: Final[Mapping[Form, Callable[[Any], Sequence[str]]]] = MappingProxyType(
    {
        Form.WORDS: lambda value: [" ".join(value)],
        Form.PAIRS: lambda value: [f"{name}={text}" for name, text in value.items()],
        Form.DURATION: lambda value: [duration_text(value * 1_000)],
        Form.INSTANT: lambda value: [instant_text(value)],
        Form.EXPIRY: lambda value: [_expiry_text(value)],
        Form.RETRY: lambda value: [policy_text(value)],
        Form.CACHES: lambda value: list(map(_cache_text, value)),
    }
)
