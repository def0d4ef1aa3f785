"""Words of others as they may be shown: seen as they are, or escaped, and never as a line of airunner's own.

A terminal obeys, besides the controls of ASCII: those of C1, U+009D among them, which begins the sequence that fills a
clipboard (OSC 52); the separators of lines (U+2028, U+2029); and what sets the direction of text, so that it reads as
what it is not (https://trojansource.codes). What has no width (U+200B and its like) lets two names look the same.

One mechanism: `is_plain` is asked of names before they are taken, and what is shown goes through `one_line` (a cell, a
fact, a line of a log) or `own_lines` (words of ours that hold several lines of somebody's).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

OBEYED: Final = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Beyond ASCII's own controls, as it stands between the brackets of a regular expression."""

CONTINUED: Final = "| "
"""What begins each further line of words that are one message."""

_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SPACES: Final = str.maketrans("\n\t", "  ")
_BYTE_MAX: Final = 0xFF
_BASIC_PLANE_MAX: Final = 0xFFFF


def is_plain(text: str) -> bool:
    """Whether all of `text` is seen as it is: no controls, nothing invisible, no space but U+0020."""
    return text.isprintable() and not _INVISIBLE.search(text)


def one_line(text: str) -> str:
    """`text` for a line of a log or a cell of a table: newlines and tabs become spaces, what is not seen is escaped."""
    return escaped(text.translate(_SPACES))


def own_lines(text: str) -> str:
    """A message of ours that may hold lines of somebody else's: none of them begins as a message does."""
    return f"\n{CONTINUED}".join(one_line(line) for line in text.split("\n"))


def escaped(text: str) -> str:
    r"""`text` with what is not seen as Python writes it: `\x1b`, `\u200b`, `\U000e0001`."""
    return text if is_plain(text) else "".join(_escapes(text, _python))


def escaped_json(text: str) -> str:
    """The same of a text that is JSON, which means what it did."""
    return text if is_plain(text) else "".join(_escapes(text, _json))


def _escapes(text: str, escape: Callable[[int], str]) -> Iterator[str]:
    for char in text:
        yield char if is_plain(char) else escape(ord(char))


def _python(code: int) -> str:
    if code <= _BYTE_MAX:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _BASIC_PLANE_MAX else f"\\U{code:08x}"


def _json(code: int) -> str:
    if code <= _BASIC_PLANE_MAX:
        return f"\\u{code:04x}"
    raw = chr(code).encode("utf-16-be")
    return "".join(f"\\u{raw[at : at + 2].hex()}" for at in (0, 2))
