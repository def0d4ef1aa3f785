"""Bodies that are almost right: MessagePack that was warped as a value, and then hurt as bytes.

Pure: all that is drawn comes from the `Random` that is handed in, so one seed makes the same bodies for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final

import msgpack

from airunner.protocol.bounds import DEPTH_MAX, VALUES_MAX
from airunner.protocol.frames import BODY_BYTES_MAX

WOUNDS_MAX: Final = 4  # of one body: with many more, nothing of it is left to be looked at
SLICE_BYTES_MAX: Final = 40
LONG_CHARS: Final = (129, 4_097, 70_000)  # beyond a name, a text, and two bytes of length
HEADS: Final = bytes(range(0x80, 0x100))  # every lead byte that is not a small number
EXTENSIONS: Final = (b"\xc1", b"\xc7\x04\xff", b"\xd4\x01", b"\xd5\xff", b"\xd6\xff", b"\xd7\xff", b"\xd8\x05")
SIZES: Final = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF)
LEAVES: Final[tuple[object, ...]] = (
    *(None, True, False, 0, 1, -1, 16, 17, 64, 65, 1_025, 2**31, 2**53 - 1, 2**53, 2**63, 2**64 - 1, -(2**63)),
    *(0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), 1e308),
    *(
        "",
        "x",
        "default",
        "a\0b",
        "\x1b[2J",
        "../../etc/passwd",
        "'; DROP TABLE job; --",
        "\U0001f680",
        "\u202e",
        "\ud7ff",
    ),
    *(b"", b"\0", bytes(31), bytes(32), bytes(33), b"\xff" * 16),
    *([], {}, [[]], {"": {}}, [None] * 65, {"type": "Ping"}, {1: 2}, {None: None}),
)

Value = Any  # what msgpack can pack


def warped(rng: Random, value: Value) -> Value:
    """`value` with one of its parts ill-typed, out of bounds, missing, repeated or misnamed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        return _warped_map(rng, value)
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return rng.choice(
            (
                lambda: [*value[:at], warped(rng, value[at]), *value[at + 1 :]],
                lambda: value[:at],
                lambda: value * rng.choice((2, 17, 65)),
            )
        )()
    if isinstance(value, str) and rng.random() < 0.3:
        return value + rng.choice("x\0\n/ é") * rng.choice((1, *LONG_CHARS))
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 1_000))
    return rng.choice(LEAVES)


def _warped_map(rng: Random, value: dict[Value, Value]) -> Value:
    key = rng.choice(list(value))
    match rng.randrange(8):
        case 0:
            return {name: part for name, part in value.items() if name != key}
        case 1:
            return {**value, rng.choice(("", "x", 7, b"job_id", f"{key}s")): value[key]}
        case 2:
            return {**value, key: value}
        case _:
            return {**value, key: warped(rng, value[key])}


def hurt(rng: Random, body: bytes, others: Sequence[bytes]) -> bytes:
    """`body` with a few wounds: bits, slices, heads and lengths that are not what they were."""
    wounded = body
    for _ in range(rng.randint(1, WOUNDS_MAX)):
        wounded = _wounded(rng, wounded or b"\0", rng.choice(others))
    return wounded


def _wounded(rng: Random, body: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(body))
    before, behind = body[:at], body[at + 1 :]
    match rng.randrange(10):
        case 0:
            return before + bytes([body[at] ^ 1 << rng.randrange(8)]) + behind
        case 1:
            return before + rng.randbytes(1) + behind
        case 2:
            return before + bytes([rng.choice(HEADS)]) + behind
        case 3:
            width = rng.choice((1, 2, 4))
            size = min(rng.choice(SIZES), 256**width - 1)
            return before + size.to_bytes(width, "big") + body[at + width :]
        case 4:
            return before + rng.randbytes(rng.randint(1, SLICE_BYTES_MAX)) + body[at:]
        case 5:
            return before + body[at + rng.randint(1, SLICE_BYTES_MAX) :]
        case 6:
            return before
        case 7:
            return before + body[at : at + SLICE_BYTES_MAX] * rng.randint(2, 9) + body[at:]
        case 8:
            return before + other[rng.randint(0, len(other)) :]
        case _:
            return before + rng.choice(EXTENSIONS) + body[at:]


def monstrous(rng: Random, body: bytes) -> bytes:
    """A body that is deep, wide or long: at the bounds, a little beyond, and far beyond."""
    depth = rng.choice((DEPTH_MAX - 1, DEPTH_MAX, DEPTH_MAX + 1, 1_000, 100_000))
    count = rng.choice((1_000, VALUES_MAX - 3, VALUES_MAX, 65_535))
    size = rng.choice((70_000, 500_000, BODY_BYTES_MAX - 100 - len(body)))
    match rng.randrange(6):
        case 0:
            grown = b"\x91" * depth + b"\xc0"
        case 1:
            grown = b"\x81\xa0" * depth + b"\xc0"
        case 2:
            grown = b"\xdd" + count.to_bytes(4, "big") + b"\x00" * count
        case 3:
            grown = b"\xdf" + count.to_bytes(4, "big") + b"\xa0\xc0" * count  # one key, again and again
        case 4:
            grown = rng.choice((b"\xdb", b"\xc6")) + size.to_bytes(4, "big") + b"x" * size
        case _:
            return b"\x81" * depth + body
    return _with_field(body, grown)


def _with_field(body: bytes, packed: bytes) -> bytes:
    """The map in `body` with a field more, or in place of its last one's value."""
    fields = body[0] & 0x0F if body[:1] and 0x80 <= body[0] <= 0x8E else None
    if fields is None:
        return b"\x81\xa4type" + packed
    return bytes([0x81 + fields]) + body[1:] + b"\xa4jobs" + packed


def packed(value: Value) -> bytes:
    """`value` as a body."""
    body = msgpack.packb(value)
    assert isinstance(body, bytes)
    return body
