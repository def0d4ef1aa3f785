r"""Escapes in output: readings of a text in which escapes are decoded and quotes and white space are left out. Pure.

Programs write a secret in many ways: `printf %q`, `set -x`, JSON, XML, YAML, URLs, several of these in one another, or
folded into one line. All of them quote it, break it into lines, or write single characters as escapes. So the redactor
searches for each secret in *readings* of the text, instead of searching the text for each way to write it:

```
 text        {"key": "-----BEGIN\n  a%2Fb"}
 reading 0   {key:-----BEGINna%2Fb}          without backslashes, quotes and white space
 reading 1   {key:-----BEGINa/b}             one level of escapes decoded: here \n and %2F
 reading 2   …                               one more, if this changes anything
```

A reading knows which part of the text each of its bytes stands for.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from html.entities import html5
from itertools import compress
from typing import Final

LEVELS_MAX: Final = 2  # escapes within escapes that are decoded, such as JSON in JSON
WHITE: Final = b" \t\r\n"
UNFINISHED_BYTES_MAX: Final = 32  # longest escape: a surrogate pair of JSON in JSON, or the colours of a terminal

_SKIPPED: Final = WHITE + b"\\\"'$"  # shells write quotes as '\'' and '"'"' and $'…', CSV and YAML double them
_FOLDED: Final = bytes.maketrans(b"-_", b"+/")  # base64 for URLs is read as base64
_KEPT: Final = bytes(byte not in _SKIPPED for byte in range(256))

_HEX: Final = "[0-9A-Fa-f]"
_HIGH: Final = rf"u[dD][89abAB]{_HEX}{{2}}"
_BACKSLASHED: Final = (
    rf"{_HIGH}\\+u[dD][c-fC-F]{_HEX}{{2}}|(?!{_HIGH})u{_HEX}{{4}}|U{_HEX}{{8}}"
    rf"|[ux]\{{{_HEX}{{1,6}}\}}|x{_HEX}{{2}}|[0-3][0-7]{{2}}|[bf]"
)
_ESCAPES: Final = tuple(  # in this order, so that what one stands for begins no other; `re` finds each fast
    (re.compile(pattern.encode()), meaning)
    for pattern, meaning in (  # None: see `_meaning`; the others stand for something that `folded` leaves out
        (rf"\\(?:{_BACKSLASHED})", None),
        (r"\\[nrt]", b"\n"),
        (rf"&(?:\\*#[0-9]{{1,7}}|\\*#[xX]{_HEX}{{1,6}}|[A-Za-z][A-Za-z0-9]{{1,7}})\\*;", None),
        (rf"%{_HEX}{{2}}", None),
        (r"\x1b\[[0-9;:?]{0,24}[A-Za-z]", b"'"),
    )
)
_UNFINISHED: Final = re.compile(
    (
        rf"(?:%{_HEX}?|&(?:\\*#?[xX]?{_HEX}{{0,7}}|[A-Za-z][A-Za-z0-9]{{0,7}})?\\*|\x1b(?:\[[0-9;:?]{{0,24}})?"
        rf"|\\+(?:{_HIGH}\\*(?:u{_HEX}{{0,3}})?|u{_HEX}{{0,3}}|[ux]\{{{_HEX}{{0,6}}|x{_HEX}?|[0-3][0-7]?|U{_HEX}{{0,7}})?)\Z"
    ).encode()
)
_LETTERS: Final = {"b": b"\b", "f": b"\f"}


class Reading:
    """Reading of a text: `text` with some escapes decoded. Offsets are mapped to the original text when asked for."""

    def __init__(self, text: bytes, origins: Callable[[], Sequence[int]] | None = None) -> None:
        self.text = text
        self._traced = origins
        self._origins: Sequence[int] | None = None if origins else range(len(text) + 1)

    def origins(self) -> Sequence[int]:
        """Return the offset in the original text of each byte of `text`, and of its end."""
        if self._origins is None:
            assert self._traced is not None, "neither offsets nor a way to find them"
            self._origins = self._traced()
        return self._origins

    def decoded(self) -> Reading:
        """Decode one level of escapes; return this reading itself if it has none."""
        text = decoded(self.text)
        return self if text == self.text else Reading(text, lambda: _traced(self.text, self.origins()))

    def finished(self) -> Reading:
        """Return the reading without the escape at its end that is not finished; itself if there is none."""
        found = _UNFINISHED.search(self.text, max(0, len(self.text) - UNFINISHED_BYTES_MAX))
        return self if found is None else Reading(self.text[: found.start()], self.origins)

    def kept(self) -> list[int]:
        """Return the offsets in `text` of the bytes that `folded` keeps."""
        return list(compress(range(len(self.text)), self.text.translate(_KEPT)))

    def offset_of_last(self, count: int) -> int:
        """Return the offset of the first of the last `count` bytes that `folded` keeps."""
        at = len(self.text)
        while count:
            at -= 1
            count -= _KEPT[self.text[at]]
        return at


def folded(text: bytes) -> bytes:
    """Leave out white space, quotes and backslashes, and write base64 for URLs as base64."""
    return text.translate(_FOLDED, _SKIPPED)


def has_white(text: bytes, count: int) -> bool:
    """Return whether there is white space before the last of the first `count` bytes that `folded` keeps."""
    for byte in text:
        if byte in WHITE:
            return True
        count -= _KEPT[byte]
        if not count:
            return False
    return False


def decoded(text: bytes) -> bytes:
    """Decode one level of escapes: of URLs, XML, and strings in JSON and shells; a terminal's colours become quotes."""
    for escape, meaning in _ESCAPES:
        # `split` and `join` are several times as fast as `sub`.
        text = escape.sub(_meaning_of, text) if meaning is None else meaning.join(escape.split(text))
    return text


def _traced(text: bytes, origins: Sequence[int]) -> Sequence[int]:
    """Return the origin of each byte of `decoded(text)` and of its end, from those of `text`."""
    for escape, fixed in _ESCAPES:
        traced: list[int] = []
        passed: list[bytes] = []
        at = 0
        for found in escape.finditer(text):
            meaning = _meaning(found[0]) if fixed is None else fixed
            traced += origins[at : found.start()]
            traced += [origins[found.start()]] * len(meaning)
            passed += (text[at : found.start()], meaning)
            at = found.end()
        text = b"".join([*passed, text[at:]])
        origins = [*traced, *origins[at:]]
    return origins


def _meaning_of(found: re.Match[bytes]) -> bytes:
    return _meaning(found[0])


@lru_cache(4_096)
def _meaning(escape: bytes) -> bytes:
    """Return what an escape stands for, or the escape itself if it stands for nothing."""
    kind, rest = escape[:1], escape[1:].decode()
    if kind == b"%":
        return bytes([int(rest, 16)])
    if kind == b"&":
        rest = rest.replace("\\", "")
        if rest[0] != "#":
            return html5.get(rest, escape.decode()).encode()
        return _character(int(rest[2:-1], 16) if rest[1] in "xX" else int(rest[1:-1]), escape)
    letter = rest[0]
    if rest in _LETTERS:
        return _LETTERS[rest]
    if letter in "0123":
        return bytes([int(rest, 8)])
    digits = rest[1:].strip("{}")
    if letter == "x" and digits == rest[1:]:
        return bytes([int(digits, 16)])
    if "\\" in digits:
        high, low = digits[:4], digits[-4:]
        return chr(0x10000 + (int(high, 16) - 0xD800 << 10) + int(low, 16) - 0xDC00).encode()
    return _character(int(digits, 16), escape)


def _character(point: int, escape: bytes) -> bytes:
    return chr(point).encode("utf-8", "surrogatepass") if point <= sys.maxunicode else escape
