"""Limits of DynamoDB: sizes of items, keys and requests, and the units that a write takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tests.simulation.dynamodb.errors import invalid
from tests.simulation.dynamodb.expressions import Item, Value

ITEM_BYTES_MAX: Final = 400 * 1_024
TRANSACTION_BYTES_MAX: Final = 4 * 1_024 * 1_024
TRANSACTION_ITEMS_MAX: Final = 100
BATCH_KEYS_MAX: Final = 100
PAGE_BYTES_MAX: Final = 1_024 * 1_024
BATCH_BYTES_MAX: Final = 16 * 1_024 * 1_024
PARTITION_KEY_BYTES_MAX: Final = 2_048
SORT_KEY_BYTES_MAX: Final = 1_024
EXPRESSION_BYTES_MAX: Final = 4_096
TOKEN_CHARS_MAX: Final = 36
NUMBER_DIGITS_MAX: Final = 38
UNIT_BYTES: Final = 1_024
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


def size_of(value: Value) -> int:
    """Bytes of a value. Raises if it is none."""
    if len(value) != 1:
        raise invalid("Supplied AttributeValue has more than one datatypes set, must contain exactly one")
    ((kind, content),) = value.items()
    match kind, content:
        case "S", str():
            return len(content.encode())
        case "B", bytes() | bytearray():
            return len(content)
        case "N", str() if _NUMBER.fullmatch(content):
            digits = content.strip("-").replace(".", "").strip("0")
            if len(digits) > NUMBER_DIGITS_MAX:
                raise invalid("Attempting to store more than 38 significant digits in a Number")
            return (len(digits) + 1) // 2 + 1
        case ("BOOL", bool()) | ("NULL", True):
            return 1
        case "M", Mapping():
            return 3 + sum(1 + len(name.encode()) + size_of(inner) for name, inner in content.items())
        case "L", list():
            return 3 + sum(1 + size_of(inner) for inner in content)
    raise invalid(f"Supplied AttributeValue is empty or not of its type: {kind}")


def item_bytes(item: Item) -> int:
    """Bytes of an item, with its attributes' names."""
    return sum(len(name.encode()) + size_of(value) for name, value in item.items())


def units_of(size_bytes: int) -> int:
    """Write units of so many bytes, outside of a transaction."""
    return max(1, -(-size_bytes // UNIT_BYTES))


def require_key(name: str, value: Value | None, kind: str, bytes_max: int, what: str = "key") -> None:
    """Require an attribute that is a key of the table or of an index."""
    if value is None or kind not in value:
        raise invalid(f"One or more parameter values were invalid: Type mismatch or missing the {what} {name}")
    size = size_of(value)
    if not (kind == "N" or size):
        raise invalid(f"One or more parameter values are not valid: empty value for {what} {name}")
    if size > bytes_max:
        raise invalid(f"One or more parameter values were invalid: size of {what} {name} exceeds {bytes_max} bytes")


def require_expressions(request: Mapping[str, Any]) -> None:
    """Require expressions that are not longer than allowed."""
    for field, text in request.items():
        if field.endswith("Expression") and len(text.encode()) > EXPRESSION_BYTES_MAX:
            raise invalid(f"Invalid {field}: Expression size has exceeded the maximum allowed size")


def require_fields(request: Iterable[str], *known: str) -> None:
    """Require that a request has no other parameters than these, as botocore does."""
    if unknown := set(request) - set(known):
        raise AssertionError(f"the fake does not know these parameters: {sorted(unknown)}")
