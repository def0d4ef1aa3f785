r"""Readings of a text: its escapes decoded and its quotes left out, to find a value however it is written. Pure.

Programs that make command lines write a value in many ways: quoted for a shell, as JSON, XML or a part of a URL, or as
several of these in one another. All of them quote it or write single characters as escapes, so a value is searched for
in readings of the text, without quotes, backslashes, white space and `+` (which is a blank in forms):

```
 text        curl -d "{\"key\": \"two%20w\u00f6rds\"}"      the value: two wörds
 reading 0   curl-d{key:two%20wu00f6rds}
 reading 1   curl-d{key:twowörds}                           one level of escapes decoded
 reading 2…  …                                              one more each, while this changes anything
```
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from html.entities import html5
from itertools import compress
from typing import Final

LEVELS_MAX: Final = 3  # escapes within escapes that are decoded, such as a URL in JSON in a shell's words
WORK_MAX: Final = 1 << 24  # bytes that are searched for all values together: some 15 ms, 1 MiB for each of 16 values
STEP_BYTES: Final = 2_048  # that take as long to search as decoding an escape, and as keeping what was found

_SKIPPED: Final = b" \t\r\n\\\"'$+"
_KEPT: Final = bytes(byte not in _SKIPPED for byte in range(256))
_HEX: Final = "[0-9A-Fa-f]"
_HIGH: Final = rf"u[dD][89abAB]{_HEX}{{2}}"
_ESCAPE: Final = re.compile(
    (
        r"[\\%&](?:"
        rf"(?<=\\)(?:{_HIGH}\\+u[dD][c-fC-F]{_HEX}{{2}}|u{_HEX}{{4}}|U{_HEX}{{8}}|[ux]\{{{_HEX}{{1,6}}\}}|x{_HEX}{{2}}"
        r"|[0-3][0-7]{2}|[abefnrtvE\\])"
        rf"|(?<=%)(?:{_HEX}{{2}}|%)"
        rf"|(?<=&)(?:\\*#[0-9]{{1,7}}|\\*#[xX]{_HEX}{{1,6}}|[A-Za-z][A-Za-z0-9]{{1,31}})\\*;)"
    ).encode()
)
_ONE_LETTER: Final = dict(zip("abtnvfreE\\", b"\a\b\t\n\v\f\r\x1b\x1b\\", strict=True))


class Unsearchable(Exception):
    """Searching a text would take too long, for its length, its escapes and the number of values."""


def folded(text: bytes) -> bytes:
    """Leave out quotes, backslashes, white space and plus signs."""
    return text.translate(None, _SKIPPED)


def decoded(text: bytes) -> bytes:
    """Decode one level of escapes: of URLs, XML, and of strings in JSON, shells and the like."""
    return _ESCAPE.sub(lambda found: _meaning(found[0]), text)


def spans_of(folds: Sequence[bytes], literals: Sequence[bytes], text: bytes) -> list[tuple[int, int]]:
    """Find the spans of folded values, and of others as they are, in all readings of a text. Raises `Unsearchable`."""
    return _Search(folds, literals).spans(text)


class _Search:
    """Search for values in all readings of a text, and the work that it may still do."""

    def __init__(self, folds: Sequence[bytes], literals: Sequence[bytes]) -> None:
        self._folds = folds
        self._literals = literals
        self._work = WORK_MAX

    def spans(self, text: bytes) -> list[tuple[int, int]]:
        origins: Sequence[int] = range(len(text) + 1)
        spans = self._found_in(text, origins)
        for _ in range(LEVELS_MAX):
            if not _ESCAPE.search(text):
                break
            text, origins = self._decoded(text, origins)
            spans += self._found_in(text, origins)
        return spans

    def _found_in(self, text: bytes, origins: Sequence[int]) -> list[tuple[int, int]]:
        found = [*self._found_folded(text), *self._found(self._literals, text)]
        return [(origins[begin], origins[end]) for begin, end in found]

    def _found_folded(self, text: bytes) -> Iterator[tuple[int, int]]:
        kept: list[int] = []
        for begin, end in self._found(self._folds, folded(text)):
            kept = kept or list(compress(range(len(text)), text.translate(_KEPT)))
            yield kept[begin], kept[end - 1] + 1

    def _found(self, needles: Sequence[bytes], text: bytes) -> Iterator[tuple[int, int]]:
        self._spend(len(needles) * len(text))
        for needle in needles:
            at = text.find(needle)
            while at >= 0:
                self._spend(STEP_BYTES)
                yield at, at + len(needle)
                at = text.find(needle, at + 1)

    def _decoded(self, text: bytes, origins: Sequence[int]) -> tuple[bytes, Sequence[int]]:
        """Decode one level of escapes of a reading; return the next reading and the origins of its bytes."""
        pieces: list[bytes] = []
        traced: list[int] = []
        at = 0
        for escape in _ESCAPE.finditer(text):
            self._spend(STEP_BYTES)
            begin, end = escape.span()
            meaning = _meaning(escape[0])
            pieces += (text[at:begin], meaning)
            traced += origins[at:begin]
            traced += [origins[begin]] * len(meaning)
            at = end
        return b"".join([*pieces, text[at:]]), [*traced, *origins[at:]]

    def _spend(self, work: int) -> None:
        """Account for work. Raises `Unsearchable`: it is too much."""
        self._work -= work
        if self._work < 0:
            raise Unsearchable


@lru_cache(4_096)
def _meaning(escape: bytes) -> bytes:
    """Return what an escape stands for, or the escape itself if it stands for nothing."""
    kind, rest = escape[:1], escape[1:].decode()
    if kind == b"%":
        return b"%" if rest == "%" else bytes([int(rest, 16)])
    if kind == b"&":
        rest = rest.replace("\\", "")
        if rest[0] != "#":
            return html5.get(rest, escape.decode()).encode()
        return _character(int(rest[2:-1], 16) if rest[1] in "xX" else int(rest[1:-1]), escape)
    if rest in _ONE_LETTER:
        return bytes([_ONE_LETTER[rest]])
    if rest[0] in "0123":
        return bytes([int(rest, 8)])
    digits = rest[1:].strip("{}")
    if rest[0] == "x" and digits == rest[1:]:
        return bytes([int(digits, 16)])
    if "\\" in digits:
        return _character(0x10000 + (int(digits[:4], 16) - 0xD800 << 10) + int(digits[-4:], 16) - 0xDC00, escape)
    return _character(int(digits, 16), escape)


def _character(point: int, escape: bytes) -> bytes:
    return chr(point).encode("utf-8", "surrogatepass") if point <= sys.maxunicode else escape
