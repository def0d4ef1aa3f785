r"""Escapes in output: readings of a text in which escapes are decoded and quotes and white space are left out. Pure.

Programs write a secret in many ways: `printf %q`, `set -x`, JSON, XML, YAML, URLs, several of these in one another, or
folded into one line. All of them quote it, break it into lines, or write single characters as escapes. So the redactor
searches for each secret in *readings* of the text, instead of searching the text for each way to write it:

```
 text        {"key": "-----BEGIN\n  a%2Fb"}
 reading 0   {key:-----BEGINna%2Fb}          without backslashes, quotes, white space and colours
 reading 1   {key:-----BEGINa/b}             one level of escapes decoded: here \n and %2F
 reading 2   …                               one more, if this changes anything
```

Where a line may end within an escape (`%2` and `F`), there is another reading: of the text without white space.
A reading knows which part of the text each of its bytes stands for.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
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
_NOT_WHITE: Final = bytes(byte not in WHITE for byte in range(256))

_HEX: Final = "[0-9A-Fa-f]"
_GAP: Final = r"[ \t\r\n]++"
_HIGH: Final = rf"u[dD][89abAB]{_HEX}{{2}}"
_BACKSLASHED: Final = (
    rf"{_HIGH}\\+u[dD][c-fC-F]{_HEX}{{2}}|(?!{_HIGH})u{_HEX}{{4}}|U{_HEX}{{8}}"
    rf"|[ux]\{{{_HEX}{{1,6}}\}}|x{_HEX}{{2}}|[0-3][0-7]{{2}}|[bf]"
)
_ESCAPES: Final = tuple(  # what one stands for begins no other, see `_MARKS`; `re` finds each alone faster than all
    (re.compile(pattern.encode()), meaning)
    for pattern, meaning in (  # None: see `_meaning`
        (rf"\\(?:{_BACKSLASHED})", None),
        (r"\\[nrt]", b"\n"),
        (rf"&(?:\\*#[0-9]{{1,7}}|\\*#[xX]{_HEX}{{1,6}}|[A-Za-z][A-Za-z0-9]{{1,7}})\\*;", None),
        (rf"%{_HEX}{{2}}", None),
    )
)
_MARKS: Final = {b"\\": b"\xf7", b"&": b"\xfe", b"%": b"\xff"}
"""What a decoded character is until all are decoded: bytes that no text in UTF-8 has."""
_MARKED: Final = bytes.maketrans(b"\xf7\xfe\xff", b"\\&%")
_UNFINISHED: Final = tuple(  # each may stand in those after it, so this is the order in which they are looked for
    re.compile(pattern.encode())
    for pattern in (
        r"\x1b(?:\[[0-9;:?]{0,24}|\()?\Z",
        r"\\+\Z",
        (
            rf"(?:%{_HEX}?|&(?:\\*#?[xX]?{_HEX}{{0,7}}|[A-Za-z][A-Za-z0-9]{{0,7}})?\\*|\\+(?:{_HIGH}\\*(?:u{_HEX}{{0,3}})?"
            rf"|u{_HEX}{{0,3}}|[ux]\{{{_HEX}{{0,6}}|x{_HEX}?|[0-3][0-7]?|U{_HEX}{{0,7}}))\Z"
        ),
    )
)
_COLOUR: Final = re.compile(rb"\x1b(?:\[[0-9;:?]{0,24}[A-Za-z]|\([0-9A-Z])")
_BREAK: Final = rf"\\*+{_GAP}"
_BROKEN: Final = tuple(  # what may be an escape with white space in it; group: what may become one
    re.compile(pattern.encode())
    for pattern in (
        rf"%(?:{_HEX}{_BREAK}(?:{_HEX}|(\Z))|{_BREAK}(?:{_HEX}{{2}}|{_HEX}?(\Z)))",
        rf"&[#\\0-9A-Za-z]{{0,9}}+{_GAP}[#\\0-9A-Za-z \t\r\n]{{0,64}}+(?:;|(\Z))",
        (
            rf"\\(?:[uxU][{{0-9A-Fa-f]{{0,8}}{_BREAK}(?:[0-9A-Fa-f{{}}\\]|(\Z))|[0-3][0-7]?{_BREAK}(?:[0-7]|(\Z))"
            rf"|{_GAP}(?:[ux]\{{|[uU]{_HEX}{{4}}|x{_HEX}{{2}}|[0-3][0-7]{{2}}|(?:[uU]{_HEX}{{0,3}}|x{_HEX}?|[0-3][0-7]?)?(\Z)))"
        ),
    )
)
_CONTINUATION: Final = re.compile(rf"\\+(?={_GAP})".encode())  # a backslash that ends a line
_GAPS: Final = re.compile(_GAP.encode())
_LETTERS: Final = {"b": b"\b", "f": b"\f"}

_Replaced = tuple[tuple[re.Pattern[bytes], bytes | None], ...]


class Reading:
    """Reading of an `original` text: `text` is what it says. Offsets are mapped to the original when asked for."""

    def __init__(self, original: bytes) -> None:
        self.original = original
        self.text = original
        self._before: Reading | None = None  # of which some parts are replaced
        self._replaced: _Replaced = ()
        self._origins: Sequence[int] = range(len(original) + 1)
        self._ends: Sequence[int] = range(1, len(original) + 1)

    def origins(self) -> Sequence[int]:
        """Return the offset in the original text of each byte of `text`, and of its end."""
        if self._before and not self._origins:
            self._origins = _traced(self._before.text, self._before.origins(), self._replaced, 0)
        return self._origins

    def ends(self) -> Sequence[int]:
        """Return the offset of the end, in the original text, of what each byte of `text` stands for."""
        if self._before and not self._ends:
            self._ends = _traced(self._before.text, self._before.ends(), self._replaced, -1)
        return self._ends

    def forms(self, *, unfinished: bool = False) -> Iterator[Reading]:
        """Yield the reading, and, if white space may stand in one of its escapes, itself without white space.

        With `unfinished` that may be an escape which ends after the text.
        A backslash before white space may begin an escape, or may belong to what is left out: there is a form for each.
        """
        yield self
        found = [broken.search(self.text) for broken in _BROKEN]
        if any(escape and (unfinished or not escape.lastindex) for escape in found):
            yield self.joined()
            if _CONTINUATION.search(self.text):
                yield self._without(_CONTINUATION).joined()

    def joined(self) -> Reading:
        """Leave out white space."""
        return self._with(self.text.translate(None, WHITE), ((_GAPS, b""),))

    def decoded(self) -> Reading:
        """Decode one level of escapes; return this reading itself if it has none."""
        text = decoded(self.text)
        return self if text == self.text else self._with(text, _ESCAPES).uncoloured()

    def uncoloured(self) -> Reading:
        """Leave out the colours of a terminal."""
        return self._without(_COLOUR) if b"\x1b" in self.text else self

    def finished(self) -> Iterator[Reading]:
        """Yield the reading without the colour that is not finished at its end, and also without such an escape."""
        reading = self
        for unfinished in _UNFINISHED:
            if found := unfinished.search(reading.text, max(0, len(reading.text) - UNFINISHED_BYTES_MAX)):
                reading = reading._with(reading.text[: found.start()], ())
                yield reading

    def kept(self) -> list[int]:
        """Return the offsets in `text` of the bytes that `folded` keeps."""
        return list(compress(range(len(self.text)), self.text.translate(_KEPT)))

    def offset_of_last(self, count: int) -> int:
        """Return the offset in `text` of the first of the last `count` bytes that `folded` keeps."""
        at = len(self.text)
        while count:
            at -= 1
            count -= _KEPT[self.text[at]]
        return at

    def origin_after_white(self, begin: int, count: int) -> int:
        """Return the origin of `text[begin]`, or where the last white space before the `count`th kept byte ends."""
        origins = self.origins()
        after = since = origins[begin]
        for offset in range(begin, len(origins)):
            if _GAPS.search(self.original, since, origins[offset]):
                after = origins[offset if offset <= len(self.text) else -1]  # -1: of an escape that is not finished
            since = origins[offset]
            count -= offset == len(self.text) or (offset < len(self.text) and _KEPT[self.text[offset]])
            if not count:
                break
        return after

    def _without(self, pattern: re.Pattern[bytes]) -> Reading:
        return self._with(b"".join(pattern.split(self.text)), ((pattern, b""),))

    def _with(self, text: bytes, replaced: _Replaced) -> Reading:
        reading = Reading(self.original)
        reading.text = text
        reading._before, reading._replaced = self, replaced
        reading._origins = reading._ends = ()
        return reading


def readings(reading: Reading, levels: int = LEVELS_MAX) -> Iterator[Reading]:
    """Yield a reading, and those with up to `levels` levels of its escapes decoded."""
    yield reading
    if levels:
        for form in reading.forms():
            if (deeper := form.decoded()) is not form:
                yield from readings(deeper, levels - 1)


def folded(text: bytes) -> bytes:
    """Leave out white space, quotes and backslashes, and write base64 for URLs as base64."""
    return text.translate(_FOLDED, _SKIPPED)


def decoded(text: bytes) -> bytes:
    """Decode one level of escapes: of URLs, XML, and strings in JSON and shells."""
    for escape, meaning in _ESCAPES:
        # `split` and `join` are several times as fast as `sub`.
        text = escape.sub(_meaning_of, text) if meaning is None else meaning.join(escape.split(text))
    return text.translate(_MARKED) if any(mark in text for mark in _MARKS.values()) else text


def _traced(text: bytes, places: Sequence[int], replaced: _Replaced, side: int) -> Sequence[int]:
    """Return the places of the bytes of `text` after replacements: of a part's first (`side` 0) or last (-1) byte."""
    for pattern, fixed in replaced:
        if pattern is _GAPS:  # this is faster
            return [*compress(places, text.translate(_NOT_WHITE)), *places[len(text) :]]
        traced: list[int] = []
        passed: list[bytes] = []
        at = 0
        for found in pattern.finditer(text):
            meaning = _meaning(found[0]) if fixed is None else fixed
            traced += places[at : found.start()]
            traced += [places[found.end() - 1 if side else found.start()]] * len(meaning)
            passed += (text[at : found.start()], meaning)
            at = found.end()
        if at:
            text = b"".join([*passed, text[at:]])
            places = [*traced, *places[at:]]
    return places


def _meaning_of(found: re.Match[bytes]) -> bytes:
    return _meaning(found[0])


@lru_cache(4_096)
def _meaning(escape: bytes) -> bytes:
    """Return what an escape stands for, or the escape itself if it stands for nothing."""
    meaning = _decoded(escape)
    return _MARKS.get(meaning, meaning)


def _decoded(escape: bytes) -> bytes:
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
