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

For example, the secret `a/b+c=` in a line of JSON that has it as a part of a URL:

>>> line = Reading(b'{"url": "https://x/?k=a%2Fb%2Bc%3D"}')
>>> [folded(reading.text) for reading in readings(line)]
[b'{url:https://x/?k=a%2Fb%2Bc%3D}', b'{url:https://x/?k=a/b+c=}']
>>> _, found = readings(line)
>>> begin = found.text.index(b"a/b+c=")
>>> line.text[found.origin(begin) : found.end(begin + 5)]  # what is replaced
b'a%2Fb%2Bc%3D'

Where a line may end within an escape (`%2` and `F`), there is another reading: of the text without white space.
A reading knows which part of the text each of its bytes stands for.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from html.entities import html5
from itertools import accumulate, compress
from typing import Final, NamedTuple

LEVELS_MAX: Final = 2  # escapes within escapes that are decoded, such as JSON in JSON
WHITE: Final = b" \t\r\n"
UNFINISHED_BYTES_MAX: Final = 32  # longest escape: a surrogate pair of JSON in JSON, or the colours of a terminal

_SKIPPED: Final = WHITE + b"\\\"'$"  # shells write quotes as '\'' and '"'"' and $'…', CSV and YAML double them
_FOLDED: Final = bytes.maketrans(b"-_", b"+/")  # base64 for URLs is read as base64
_KEPT: Final = bytes(byte not in _SKIPPED for byte in range(256))

_HEX: Final = "[0-9A-Fa-f]"
_GAP: Final = r"[ \t\r\n]++"
_HIGH: Final = rf"u[dD][89abAB]{_HEX}{{2}}"
_BACKSLASHED: Final = (
    rf"{_HIGH}\\+u[dD][c-fC-F]{_HEX}{{2}}|(?!{_HIGH})u{_HEX}{{4}}|U{_HEX}{{8}}"
    rf"|[ux]\{{{_HEX}{{1,6}}\}}|x{_HEX}{{2}}|[0-3][0-7]{{2}}|[bf]"
)


class _Parts(NamedTuple):
    """Parts of a text: the byte that each begins with, their pattern, and what they mean (None: see `_meaning`)."""

    lead: bytes
    pattern: re.Pattern[bytes]
    meaning: bytes | None


def _parts(lead: str, rest: str, meaning: bytes | None = b"") -> _Parts:
    return _Parts(lead.encode(), re.compile(f"({re.escape(lead)}{rest})".encode()), meaning)


_ESCAPES: Final = (  # what one stands for begins no other, see `_MARKS`; `re` finds each alone faster than all
    _parts("\\", f"(?:{_BACKSLASHED})", None),
    _parts("\\", "[nrt]", b"\n"),
    _parts("&", rf"(?:\\*+#[0-9]{{1,7}}+|\\*+#[xX]{_HEX}{{1,6}}+|[A-Za-z][A-Za-z0-9]{{1,7}}+)\\*+;", None),
    _parts("%", f"{_HEX}{{2}}", None),
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
_COLOUR: Final = _parts("\x1b", r"(?:\[[0-9;:?]{0,24}[A-Za-z]|\([0-9A-Z])")
_BREAK: Final = rf"\\*+{_GAP}"
_BROKEN: Final = tuple(  # what may be an escape with white space in it, and begins so; group: what may become one
    (lead.encode(), re.compile(f"{re.escape(lead)}{rest}".encode()))
    for lead, rest in (
        ("%", rf"(?:{_HEX}{_BREAK}(?:{_HEX}|(\Z))|{_BREAK}(?:{_HEX}{{2}}|{_HEX}?(\Z)))"),
        ("&", rf"[#\\0-9A-Za-z]{{0,9}}+{_GAP}[#\\0-9A-Za-z \t\r\n]{{0,64}}+(?:;|(\Z))"),
        (
            "\\",
            (
                rf"(?:[uxU][{{0-9A-Fa-f]{{0,8}}{_BREAK}(?:[0-9A-Fa-f{{}}\\]|(\Z))|[0-3][0-7]?{_BREAK}(?:[0-7]|(\Z))|{_GAP}"
                rf"(?:[ux]\{{|[uU]{_HEX}{{4}}|x{_HEX}{{2}}|[0-3][0-7]{{2}}|(?:[uU]{_HEX}{{0,3}}|x{_HEX}?|[0-3][0-7]?)?(\Z)))"
            ),
        ),
    )
)
_CONTINUATION: Final = _parts("\\", rf"\\*(?={_GAP})")  # backslashes that end a line
_GAPS: Final = _parts("", _GAP)
_LETTERS: Final = {"b": b"\b", "f": b"\f"}


class Reading:
    """Reading of an `original` text: `text` is what it says. Offsets are mapped to the original when asked for."""

    def __init__(self, original: bytes) -> None:
        self.original = original
        self.text = original
        self.hidden = 0  # size of an escape, or colours, after `text` that are not finished, and that it leaves out
        self._before: Reading | None = None  # of which parts are replaced
        self._parts: _Parts | None = None  # these parts
        self._begins: tuple[list[int], list[int]] | None = None

    def origin(self, offset: int) -> int:
        """Return the offset in the original text of a byte of `text`, of its end, or of what it leaves out after it."""
        return offset if self._before is None else self._before.origin(self._offset_before(offset, last=False))

    def end(self, offset: int) -> int:
        """Return the offset of the end, in the original text, of what a byte of `text` stands for."""
        return offset + 1 if self._before is None else self._before.end(self._offset_before(offset, last=True))

    def forms(self, *, unfinished: bool = False) -> Iterator[Reading]:
        """Yield the reading, and, if white space may stand in one of its escapes, itself without white space.

        With `unfinished` that may be an escape which ends after the text.
        A backslash before white space may begin an escape, or may belong to what is left out: there is a form for each.
        """
        yield self
        found = (broken.search(self.text) for lead, broken in _BROKEN if lead in self.text)
        if any(escape and (unfinished or not escape.lastindex) for escape in found):
            yield self.joined()
            if (continued := self._replaced(_CONTINUATION)) is not self:
                yield continued.joined()

    def joined(self) -> Reading:
        """Leave out white space."""
        return self.derived(self.text.translate(None, WHITE), _GAPS)

    def decoded(self) -> Reading:
        """Decode one level of escapes; return this reading itself if it has none."""
        reading = self
        for escapes in _ESCAPES:
            reading = reading._replaced(escapes)
        if any(mark in reading.text for mark in _MARKS.values()):
            reading = reading.derived(reading.text.translate(_MARKED))
        return self if reading.text == self.text else reading.uncoloured()

    def uncoloured(self) -> Reading:
        """Leave out the colours of a terminal."""
        return self._replaced(_COLOUR)

    def finished(self) -> Iterator[Reading]:
        """Yield the reading without the colour that is not finished at its end, and also without such an escape."""
        reading = self
        for unfinished in _UNFINISHED:
            if found := unfinished.search(reading.text, max(0, len(reading.text) - UNFINISHED_BYTES_MAX)):
                reading = reading.derived(reading.text[: found.start()])
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
        size = len(self.text)
        after = since = self.origin(begin)
        for offset in range(begin, size + self.hidden + 1):
            origin = self.origin(offset)
            if _GAPS.pattern.search(self.original, since, origin):
                after = origin if offset <= size else self.origin(size + self.hidden)
            since = origin
            count -= offset == size or (offset < size and _KEPT[self.text[offset]])
            if not count:
                break
        return after

    def _offset_before(self, offset: int, *, last: bool) -> int:
        """Return the offset, in the text before, of the first or the last byte of what a byte stands for."""
        begins, before = self._begins = self._begins or self._begins_of_parts()
        part = bisect_right(begins, offset) - 1
        if not part % 2:
            return before[part] + offset - begins[part]
        return before[part + 1] - 1 if last else before[part]

    def _begins_of_parts(self) -> tuple[list[int], list[int]]:
        """Return the offsets in `text`, and in the text before it, at which the parts and the last of them ends.

        Every second part is replaced.
        """
        assert self._before is not None
        text = self._before.text
        parts = [text] if self._parts is None else self._parts.pattern.split(text)
        before = [0, *accumulate(map(len, parts))]
        begins = before if self._parts is None else [0, *accumulate(map(len, _meanings(parts, self._parts)))]
        before[-1] += self._before.hidden
        begins[-1] = len(self.text) + self.hidden
        return begins, before

    def _replaced(self, parts: _Parts) -> Reading:
        """Replace parts of the text by what they mean; return this reading itself if it has none."""
        if parts.lead not in self.text:
            return self
        split = parts.pattern.split(self.text)  # `split` and `join` are several times as fast as `sub`
        return self.derived(b"".join(_meanings(split, parts)), parts) if len(split) > 1 else self

    def derived(self, text: bytes, parts: _Parts | None = None) -> Reading:
        """Return another text, whose `parts` are replaced, or which is without its last bytes."""
        reading = Reading(self.original)
        reading.text = text
        reading._before, reading._parts = self, parts
        reading.hidden = self.hidden if parts else self.hidden + len(self.text) - len(text)
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


def _meanings(split: list[bytes], parts: _Parts) -> list[bytes]:
    """Replace every second piece of a split text by what it means."""
    fixed = parts.meaning
    split[1::2] = map(_meaning, split[1::2]) if fixed is None else [fixed] * (len(split) // 2)
    return split


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
