"""Validation errors in words: which field of a message does not fit its type, and what is expected.

The decoder of msgspec says ``Expected `array` of length <= 4096 - at `$.args` ``, without the value. When it has
refused a message, or the other side has, this module looks for the first value that does not fit and words the refusal.
A few rules cover all types of `protocol`, because their bounds are `Meta` annotations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeGuard

from msgspec import Struct, inspect, structs

from airunner.protocol.caches import CACHE_NAME_EXPECTED, CACHE_NAME_PATTERN, KEY_EXPECTED, KEY_PATTERN
from airunner.protocol.errors import BadRequest, FieldError
from airunner.protocol.names import (
    MILLISECONDS_MAX,
    NAME_EXPECTED,
    NAME_PATTERN,
    TAG_VALUE_EXPECTED,
    TAG_VALUE_PATTERN,
    VARIABLE_EXPECTED,
    VARIABLE_PATTERN,
)

SHOWN_CHARS: Final = 60  # of a refused text
_PATTERNS: Final = {
    NAME_PATTERN: NAME_EXPECTED,
    VARIABLE_PATTERN: VARIABLE_EXPECTED,
    TAG_VALUE_PATTERN: TAG_VALUE_EXPECTED,
    CACHE_NAME_PATTERN: CACHE_NAME_EXPECTED,
    KEY_PATTERN: KEY_EXPECTED,
}
NOT_TEXT: Final = "bytes that are not UTF-8 text cannot be sent; encode them, for example in base64"

_SURROGATE: Final = re.compile("[\ud800-\udfff]")  # a byte that is not UTF-8, by PEP 383, or half a character
_BYTE: Final = re.compile(r"\\udc([89a-f][0-9a-f])")  # such a byte in a `repr`

_Misfit = tuple[object, str]
"""Part of the value, by name or number, or None for all of it; and the problem."""


def misfit_in(kind: type[Struct], values: Mapping[str, object]) -> FieldError | None:
    """Find the first field of `values` that does not fit its type in `kind`; None: every field fits."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType), f"{kind} is not a Struct"
    for field in info.fields:
        if field.name in values and (found := _misfit(field.type, values[field.name])) is not None:
            part, problem = found
            return FieldError(field.name, problem, part)
        if field.required and field.name not in values:
            return FieldError(field.name, "this is missing")
    return None


def field_error(error: ValueError, kind: type[Struct], values: Mapping[str, object]) -> FieldError | None:
    """Return the field error behind an error of msgspec or of `kind` itself, or else search `values` for it."""
    for known in (error, error.__cause__):
        if isinstance(known, FieldError):
            return known
    return misfit_in(kind, values)


def with_field_named(error: BadRequest, request: Struct) -> BadRequest:
    """Word a refusal of `request` after its first field that does not fit; keep the error if all of them fit."""
    misfit = misfit_in(type(request), structs.asdict(request))
    if misfit is None:
        return error
    worded = BadRequest(str(misfit))
    worded.misfit = misfit
    return worded


def shown(value: object) -> str:
    r"""Format a refused value in few characters; a byte that is not UTF-8 as `\xe9`."""
    text = _BYTE.sub(r"\\x\1", repr(value))
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…"


def _misfit(type_: Any, value: Any) -> _Misfit | None:  # noqa: ANN401 - a class of msgspec's for each kind of type
    match type_:
        case inspect.Metadata():  # of documentation
            return _misfit(type_.type, value)
        case inspect.UnionType():
            found = [_misfit(part, value) for part in type_.types if not isinstance(part, inspect.NoneType)]
            return None if value is None or None in found else found[0]
        case inspect.StrType():
            return _text(type_, value)
        case inspect.BoolType():
            return None if isinstance(value, bool) else (None, f"expected true or false, not {shown(value)}")
        case inspect.IntType():
            return _integer(type_, value)
        case inspect.EnumType():
            words = [str(word.value) for word in type_.cls]
            return None if value in words else (None, f"expected {' or '.join(words)}, not {shown(value)}")
        case inspect.VarTupleType():
            return _items(type_, value)
        case inspect.DictType():
            return _pairs(type_, value)
        case inspect.StructType():
            return _struct(type_, structs.asdict(value) if isinstance(value, Struct) else value)
        case _:
            return None


def _text(type_: inspect.StrType, value: object) -> _Misfit | None:
    if not isinstance(value, str):
        return None, f"expected text, not {shown(value)}"
    if odd := _SURROGATE.search(value):  # the text may be a secret: only the character is shown
        return None, f"{NOT_TEXT}: {shown(odd[0])} at character {odd.start() + 1}"
    short, long = len(value) < (type_.min_length or 0), len(value) > (type_.max_length or len(value))
    if type_.pattern in _PATTERNS and (short or long or not re.match(type_.pattern, value)):
        return None, f"expected {_PATTERNS[type_.pattern]}, not {shown(value)}"
    if short:
        return None, "expected text, and it is empty"
    return (None, f"expected at most {type_.max_length} characters, not {len(value)}") if long else None


def _integer(type_: inspect.IntType, value: object) -> _Misfit | None:
    least, most = type_.ge, type_.le
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    if number is not None and (least is None or number >= least) and (most is None or number <= most):
        return None
    bounds = f" from {least} to {most}"
    if most is None or (most == MILLISECONDS_MAX and (number is None or number <= most)):
        bounds = "" if least is None else f" of at least {least}"
    return None, f"expected a whole number{bounds}, not {shown(value)}"


def _items(type_: inspect.VarTupleType, value: object) -> _Misfit | None:
    if not _is_list(value):
        return None, f"expected a list, not {shown(value)}"
    if len(value) < (type_.min_length or 0) or len(value) > (type_.max_length or len(value)):
        return None, f"expected {type_.min_length or 0} to {type_.max_length} items, not {len(value)}"
    return _first((number, f"item {number + 1}", type_.item_type, item) for number, item in enumerate(value))


def _pairs(type_: inspect.DictType, value: object) -> _Misfit | None:
    if not _is_mapping(value):
        return None, f"expected names with values, not {shown(value)}"
    if len(value) > (type_.max_length or len(value)):
        return None, f"expected at most {type_.max_length} names, not {len(value)}"
    names = ((name, "a name", type_.key_type, name) for name in value)
    return _first(names) or _first((name, shown(name), type_.value_type, text) for name, text in value.items())


def _struct(type_: inspect.StructType, value: object) -> _Misfit | None:
    if not _is_mapping(value):
        return None, f"expected {type_.cls.__name__}(…), not {shown(value)}"
    inner = misfit_in(type_.cls, {str(name): part for name, part in value.items()})
    return None if inner is None else (None, str(inner))


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, (list, tuple))


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, dict)


def _first(parts: Iterable[tuple[object, str, Any, object]]) -> _Misfit | None:
    """Find the first part that does not fit its type; its name goes before the problem."""
    for part, name, type_, value in parts:
        if (found := _misfit(type_, value)) is not None:
            return part, f"{name}: {found[1]}"
    return None
