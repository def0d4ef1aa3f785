"""Parameters of a request's query string: read into a Struct, and refused by name if they do not fit.

The types are those of `protocol`: a number is written in decimal, a switch as `true` or `false`, a list by repeating
the parameter, and pairs as `label=NAME=VALUE`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Final, TypeVar

import msgspec
from msgspec import Struct, inspect

from airunner.client.web.problems import bad_field
from airunner.protocol.errors import BadRequest
from airunner.protocol.misfits import misfit_in
from airunner.protocol.names import nearest

_Query = TypeVar("_Query", bound=Struct)
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_SWITCHES: Final = {"true": True, "false": False}


class NoParameters(Struct, frozen=True):
    """Query of an operation that has no parameters."""


def parameters_of(kind: type[_Query], given: Iterable[tuple[str, str]]) -> _Query:
    """Read a query string. Raises `BadRequest`, with the parameter that is unknown or does not fit."""
    fields = fields_of(kind)
    values: dict[str, object] = {}
    lists: dict[str, list[str]] = {}
    pairs: dict[str, dict[str, str]] = {}
    for name, text in given:
        if name not in fields:
            raise bad_field(name, unknown(name, fields, "parameter"))
        types = tuple(_types_of(fields[name].type))
        if isinstance(types[0], inspect.DictType):
            _add_pair(pairs.setdefault(name, {}), name, text)
        elif isinstance(types[0], inspect.VarTupleType):
            lists.setdefault(name, []).append(text)
        elif name in values:
            raise bad_field(name, "this is given twice")
        else:
            values[name] = _value(types, text)
    return converted(kind, {**values, **lists, **pairs})


def converted(kind: type[_Query], values: Mapping[str, object]) -> _Query:
    """Make a Struct of values. Raises `BadRequest` with the first that does not fit."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        misfit = misfit_in(kind, values)
        if misfit is None:
            raise BadRequest(str(error)) from error
        raise bad_field(misfit.field, misfit.problem) from error


def unknown(name: str, known: Iterable[str], what: str) -> str:
    """Say that there is no such parameter or field, and which there are, or which is probably meant."""
    names = list(known)
    if (close := nearest(name, names)) is not None:
        return f"there is no such {what}; is {close} meant?"
    return f"there is no such {what}; there are {', '.join(names)}" if names else f"there are no {what}s here"


@cache
def fields_of(kind: type[Struct]) -> Mapping[str, inspect.Field]:
    """Return the fields of a Struct by the names that they have outside."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType), f"{kind} is not a Struct"
    return {field.encode_name: field for field in info.fields}


def _types_of(type_: inspect.Type) -> Iterator[inspect.Type]:
    """Yield the types that a value may have, without their documentation."""
    if isinstance(type_, inspect.Metadata):
        yield from _types_of(type_.type)
    elif isinstance(type_, inspect.UnionType):
        for part in type_.types:
            yield from _types_of(part)
    else:
        yield type_


def _value(types: Iterable[inspect.Type], text: str) -> object:
    """Read a number or a switch; other text is checked as it is."""
    for type_ in types:
        if isinstance(type_, inspect.IntType) and _WHOLE.fullmatch(text):
            return int(text)
        if isinstance(type_, inspect.BoolType) and text in _SWITCHES:
            return _SWITCHES[text]
    return text


def _add_pair(pairs: dict[str, str], name: str, text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals:
        raise bad_field(name, f"expected NAME=VALUE, not {text[:60]!r}")
    if pairs.setdefault(key, value) != value:
        raise bad_field(name, f"{key!r} is given with two values, and no job has both")
