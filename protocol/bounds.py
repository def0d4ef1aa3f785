"""Bounds of a MessagePack body: how many values it holds, and how deep they are nested.

An untyped decoder allocates as much as a header claims and recurses as deep as the body is nested. This check does
neither: it walks over the bytes once, counts, and refuses. The typed decoder of requests allocates only within the
bounds of its types, of which every array and map has one, and skips unknown fields; for replies, whose arrays have
none, and for anything untyped, the check comes first.

Source: the MessagePack specification, https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from typing import Final

import msgspec

from airunner.protocol.errors import BadRequest

DEPTH_MAX: Final = 16  # nested arrays and maps
VALUES_MAX: Final = 32_768  # in a request; checked in a few milliseconds
REPLY_VALUES_MAX: Final = 262_144  # in a reply: 16 jobs (`requests.SLOTS_MAX`), each with all that a job may have

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Every exception that msgspec raises for bytes that it cannot decode."""

_FIXED: Final[dict[int, int]] = {  # lead byte: bytes that follow
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),  # nil, false, true
    **dict.fromkeys((0xCC, 0xD0), 1),
    **dict.fromkeys((0xCD, 0xD1), 2),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 4),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 8),
}
_FLAT: Final = tuple(
    # Size in bytes of a value whose lead byte determines it: small integers, short strings, those in `_FIXED`; else 0.
    1 if lead <= 0x7F or lead >= 0xE0 else 1 + (lead & 0x1F) if 0xA0 <= lead <= 0xBF else 1 + _FIXED.get(lead, -1)
    for lead in range(256)
)
_FEW: Final = {  # lead byte of an array or map whose length is in it: values nested in it
    **{0x80 | pairs: 2 * pairs for pairs in range(16)},
    **{0x90 | items: items for items in range(16)},
}
_SHORT: Final = frozenset((0xC4, 0xD9))  # bin and str whose length takes one byte: ids, keys, most texts
_SIZED: Final[dict[int, int]] = {0xC5: 2, 0xC6: 4, 0xDA: 2, 0xDB: 4}  # other bin and str: bytes that the length takes
_NESTED: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}  # array, map: bytes of length, values a pair


def check_structure(body: bytes, values_max: int = VALUES_MAX) -> int:
    """Check that `body` is one whole map within the bounds; return the number of its values. Raises `BadRequest`."""
    if not body or not (0x80 <= body[0] <= 0x8F or body[0] in (0xDE, 0xDF)):
        raise BadRequest("the body is not a MessagePack map")
    try:
        end, values = _walk(body, values_max)
    except IndexError as error:
        raise BadRequest("the body is cut short") from error
    if end != len(body):
        raise BadRequest("the body is cut short" if end > len(body) else "bytes follow the body")
    return values


def _walk(body: bytes, values_max: int) -> tuple[int, int]:
    """Return the offset after the first value in `body`, and the number of values that it holds."""
    offset = 0
    values = 1  # also those that are claimed and not yet read
    outer: list[int] = []  # values not yet read at each level around this one
    left = 1  # values not yet read at this level
    while True:
        while left:
            left -= 1
            lead = body[offset]
            if size := _FLAT[lead]:
                offset += size
            elif lead in _SHORT:
                offset += 2 + body[offset + 1]
            else:
                offset, children = (offset + 1, _FEW[lead]) if lead in _FEW else _open(body, offset + 1, lead)
                if children:
                    values += children
                    if values > values_max:
                        raise BadRequest(f"the body holds more than {values_max} values, or claims to")
                    if len(outer) >= DEPTH_MAX:
                        raise BadRequest(f"the body is nested deeper than {DEPTH_MAX}")
                    outer.append(left)
                    left = children
        if not outer:
            return offset, values
        left = outer.pop()


def _open(body: bytes, offset: int, lead: int) -> tuple[int, int]:
    """Return the offset after the value's head and flat content, and the number of values nested in it."""
    if lead in _SIZED:
        width = _SIZED[lead]
        return offset + width + _length(body, offset, width), 0
    if lead in _NESTED:
        width, factor = _NESTED[lead]
        return offset + width, factor * _length(body, offset, width)
    raise BadRequest(f"the body holds a value of a type that is not used here (0x{lead:02x})")


def _length(body: bytes, offset: int, width: int) -> int:
    if offset + width > len(body):
        raise IndexError
    return int.from_bytes(body[offset : offset + width], "big")
