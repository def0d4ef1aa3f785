"""A body is bounded before anything is built from it."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airunner.protocol.bounds import DEPTH_MAX, VALUES_MAX, check_structure
from airunner.protocol.errors import BadRequest

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=4),
    max_leaves=6,
)
_BODIES = st.dictionaries(st.text(max_size=2), _VALUES, max_size=4)


@given(body=_BODIES, single=st.booleans(), data=st.data())
@settings(max_examples=50)
def test_what_msgpack_writes_passes_and_every_head_of_it_is_cut_short(
    *, body: dict[str, object], single: bool, data: st.DataObject
):
    packed = msgpack.packb(body, use_single_float=single)
    check_structure(packed)
    with pytest.raises(BadRequest):
        check_structure(packed[: data.draw(st.integers(0, len(packed) - 1))])


@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 255, 256, 20_000, 65_535, 65_536])
def test_every_width_of_length_and_count_is_understood(size: int):
    check_structure(msgpack.packb({"text": "x" * size, "bytes": b"x" * size}))
    check_structure(msgpack.packb({"list": [1] * min(size, 20_000)}))
    check_structure(msgpack.packb({"map": {str(n): 1 for n in range(min(size, 20_000) // 2)}}))
    check_structure(b"\xdf\x00\x00\x00\x01\xa1a\xdd\x00\x00\x00\x01\xc0")  # wide heads for small counts


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not a MessagePack map"),
        (b"\x90", "not a MessagePack map"),
        (b"\xc0", "not a MessagePack map"),
        (b"\x81\xa1a", "cut short"),
        (b"\xde\x00", "cut short"),
        (b"\x81\xa1a\xc6\x00\x00", "cut short"),
        (b"\x81\xa1a\xc6\x7f\xff\xff\xff", "cut short"),
        (b"\x80\xc0", "bytes follow"),
        (b"\x81\xa1a\xc1", "not used here"),
        (b"\x81\xa1a\xd4\x01\x00", "not used here"),
        (b"\xdf\xff\xff\xff\xff", "more than"),
    ],
)
def test_a_malformed_body_is_refused(body: bytes, why: str):
    with pytest.raises(BadRequest, match=why):
        check_structure(body)


def _nested(depth: int) -> bytes:
    return b"\x81\xa1a" + b"\x91" * (depth - 1) + b"\xc0"


def test_depth_is_bounded():
    check_structure(_nested(DEPTH_MAX))
    with pytest.raises(BadRequest, match="nested deeper"):
        check_structure(_nested(DEPTH_MAX + 1))
    with pytest.raises(BadRequest):
        check_structure(_nested(1_000_000))


def test_the_number_of_values_is_bounded():
    most = (VALUES_MAX - 4) // 2
    check_structure(msgpack.packb({"a": [0] * most, "b": [0] * (most - 1)}))
    with pytest.raises(BadRequest, match="more than"):
        check_structure(msgpack.packb({"a": [0] * most, "b": [0] * (most + 1)}))
