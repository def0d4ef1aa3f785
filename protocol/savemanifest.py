"""Manifest of a save: the list of its files, with which another workspace is made the same. Pure.

Paths are relative to the workspace: `checkout/…` and `home/…`; a folder's ends with `/`. `paths` are those that were to
be kept: what is below them and not in the list was not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from airunner.protocol.blobs import PIECE_BYTES_MAX, SAVE_SLICES_MAX, Slice
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import Forged
from airunner.protocol.names import Natural

CHECKOUT: Final = "checkout"
HOME: Final = "home"
FILES_MAX: Final = 200_000  # files, folders and links of one save
MANIFEST_BYTES_MAX: Final = SAVE_SLICES_MAX * PIECE_BYTES_MAX


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """Entry of a manifest: a file, folder or link."""

    path: str
    mode: Annotated[int, Meta(ge=0, le=0o777)]
    mtime_ns: int
    size_bytes: Natural = 0
    target: str = ""
    slices: tuple[Slice, ...] = ()

    @property
    def kind(self) -> Literal["file", "folder", "link"]:
        """What it is: `file`, `folder` or `link`."""
        return "link" if self.target else "folder" if self.path.endswith("/") else "file"


class Manifest(Struct, frozen=True, array_like=True):
    """Manifest of one save."""

    paths: tuple[str, ...]
    entries: Annotated[tuple[Entry, ...], Meta(max_length=FILES_MAX)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Manifest)


def encode(manifest: Manifest) -> bytes:
    """Encode a manifest."""
    return _encoder.encode(manifest)


def decode(raw: bytes) -> Manifest:
    """Decode a manifest. Raises `Forged`: it is none."""
    try:
        return _decoder.decode(raw)
    except UNDECODABLE as error:
        raise Forged("the list of its files cannot be decoded") from error


def pieces_of(raw: bytes) -> Iterator[bytes]:
    """Cut an encoded manifest into pieces."""
    return (raw[at : at + PIECE_BYTES_MAX] for at in range(0, len(raw), PIECE_BYTES_MAX))


def places_of(keep: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of the workspace that a job keeps, none of them below another one."""
    places = sorted({_place_of(path) for path in keep})
    return tuple(place for place in places if not any(is_below(place, other) for other in places))


def is_below(path: str, other: str) -> bool:
    """Return whether a path is below another one."""
    return path.startswith(f"{other}/")


def _place_of(path: str) -> str:
    top, names = CHECKOUT, path.split("/")
    if names[0] == "~":
        top, names = HOME, names[1:]
    return "/".join([top, *(name for name in names if name not in ("", "."))])


def size_of(entries: Sequence[Entry]) -> int:
    """Add up the sizes of files."""
    return sum(entry.size_bytes for entry in entries)
