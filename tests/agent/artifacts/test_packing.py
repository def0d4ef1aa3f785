"""Packing of files: what the slices of each file are made of, and how many pieces that takes."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.agent.artifacts.packing import Packed, Piece, Window, next_window, pack
from airunner.protocol.blobs import PIECE_BYTES_MAX, Slice, blob_id
from airunner.protocol.events import SLICES_MAX

SIZES = st.sampled_from(
    [0, 1, 5, 1_000, 400_000, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, 3 * PIECE_BYTES_MAX + 7]
)


def chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), PIECE_BYTES_MAX):
        yield content[start : start + PIECE_BYTES_MAX]


def put_together(pieces: dict[bytes, bytes], slices: tuple[Slice, ...]) -> bytes:
    return b"".join(pieces[part.blob][part.offset : part.offset + part.length] for part in slices)


@given(sizes=st.lists(SIZES, max_size=12), seed=st.integers(0, 3))
def test_the_slices_of_each_file_put_together_are_the_file(sizes: list[int], seed: int) -> None:
    random = Random(seed)
    files = [random.randbytes(size) for size in sizes]
    pieces: dict[bytes, bytes] = {}
    packed: dict[int, Packed[int]] = {}
    for item in pack((number, chunks(file)) for number, file in enumerate(files)):
        if isinstance(item, Piece):
            assert 0 < len(item.content) <= PIECE_BYTES_MAX
            assert item.id == blob_id(item.content)
            pieces[item.id] = item.content
        else:
            assert all(part.blob in pieces for part in item.slices), "a file comes behind its last piece"
            packed[item.key] = item
    assert sorted(packed) == list(range(len(files)))
    for number, file in enumerate(files):
        assert packed[number].size_bytes == len(file)
        assert put_together(pieces, packed[number].slices) == file


def test_many_small_files_share_few_pieces() -> None:
    files = [bytes([number % 256]) * 1_000 for number in range(5_000)]
    items = list(pack((number, chunks(file)) for number, file in enumerate(files)))
    pieces = [item for item in items if isinstance(item, Piece)]
    assert len(pieces) == 5
    assert all(len(item.slices) == 1 for item in items if isinstance(item, Packed))


def test_a_file_of_very_many_pieces_has_a_list_of_them_in_pieces_too() -> None:
    whole = bytes(PIECE_BYTES_MAX)
    of_list: dict[bytes, bytes] = {}
    packed = None
    for item in pack([("large", iter([whole] * SLICES_MAX + [b"rest"]))]):
        if isinstance(item, Packed):
            packed = item
        elif item.content not in (whole, b"rest"):
            of_list[item.id] = item.content
    assert packed is not None
    assert (packed.size_bytes, packed.slices) == (SLICES_MAX * PIECE_BYTES_MAX + 4, ())
    slices = msgspec.msgpack.decode(put_together(of_list, packed.index), type=tuple[Slice, ...])
    assert len(slices) == SLICES_MAX + 1
    assert slices[0] == Slice(blob_id(whole), 0, PIECE_BYTES_MAX)
    assert slices[-1] == Slice(blob_id(b"rest"), 0, 4)


def test_a_window_is_bounded_in_bytes_and_in_pieces_and_an_empty_one_is_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def windows(bytes_max: int) -> list[Window[int]]:
        packed = pack((number, chunks(bytes([number]) * (PIECE_BYTES_MAX + 1))) for number in range(6))
        found = []
        while (window := next_window(packed, bytes_max)).pieces or window.files:
            found.append(window)
        assert [file.key for window in found for file in window.files] == list(range(6))
        return found

    assert [len(window.pieces) for window in windows(3 * PIECE_BYTES_MAX)] == [5, 6, 1]
    monkeypatch.setattr("airunner.agent.artifacts.packing.IDS_MAX", 4)
    assert [len(window.pieces) for window in windows(1 << 40)] == [4, 4, 4, 0]
