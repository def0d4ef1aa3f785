"""Printable text: escapes other people's text, so that it cannot control a terminal or look like a message of ours.

Besides the ASCII controls, a terminal obeys: the C1 controls, among them U+009D, which begins the sequence that fills a
clipboard (OSC 52); the line separators (U+2028, U+2029); and the characters that set the direction of text, so that it
reads as something else (https://trojansource.codes). Characters without width (U+200B and the like) make two different
names look the same.

Names are checked with `is_plain` before they are accepted; text that is shown goes through `one_line` (a cell, a fact,
a line of a log) or `own_lines` (a message of ours that quotes several lines).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

OBEYED: Final = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Characters that a terminal obeys, besides the ASCII controls; for the brackets of a regular expression."""

CONTINUED: Final = "| "
"""Prefix of each further line of one message."""

_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SPACES: Final = str.maketrans("\n\t", "  ")
_NAMED: Final = {ord("\n"): "\\n", ord("\t"): "\\t", ord("\r"): "\\r", ord("\x1b"): "\\e"}
_ASCII_MAX: Final = 0x7F
_BYTE_MAX: Final = 0xFF
_BASIC_PLANE_MAX: Final = 0xFFFF


def is_plain(text: str) -> bool:
    """Return whether all of `text` is visible as it is: no controls, no invisible characters, no space but U+0020."""
    return text.isprintable() and not _INVISIBLE.search(text)


def one_line(text: str) -> str:
    """Escape `text` for a line of a log or a cell of a table: newlines and tabs become spaces."""
    return text if is_plain(text) else escaped(text.translate(_SPACES))


def own_lines(text: str) -> str:
    """Escape a message of ours that may quote several lines: each further line gets the prefix `CONTINUED`."""
    return f"\n{CONTINUED}".join(one_line(line) for line in text.split("\n"))


def escaped(text: str) -> str:
    r"""Escape invisible characters in `text` as Python writes them: `\x1b`, `\u200b`, `\U000e0001`."""
    return text if is_plain(text) else "".join(_escapes(text, _python))


def shell_word(word: str) -> str:
    r"""Quote a word so that it can be pasted into bash, zsh or ksh; a word with a control character as `$'a\nb'`."""
    if is_plain(word):
        return shlex.quote(word)
    quoted = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{''.join(_escapes(quoted, _dollar))}'"


def shell_line(words: Iterable[str]) -> str:
    """Quote words so that they can be pasted into a shell, as `shell_word` does."""
    return " ".join(map(shell_word, words))


def json_line(value: object) -> str:
    """Encode `value` as one line of JSON, without a newline; a parser reads the escapes as the original characters."""
    text = msgspec.json.encode(value).decode()  # msgspec escapes ASCII controls only
    return text if is_plain(text) else "".join(_escapes(text, _json))


def _escapes(text: str, escape: Callable[[int], str]) -> Iterator[str]:
    for char in text:
        yield char if is_plain(char) else escape(ord(char))


def _python(code: int) -> str:
    if code <= _BYTE_MAX:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _BASIC_PLANE_MAX else f"\\U{code:08x}"


def _dollar(code: int) -> str:
    r"""Escape a character in a `$'...'` of a shell: control characters as octal digits, which no digit can extend."""
    if code <= _ASCII_MAX:
        return _NAMED.get(code) or f"\\{code:03o}"
    return f"\\u{code:04x}" if code <= _BASIC_PLANE_MAX else f"\\U{code:08x}"


def _json(code: int) -> str:
    if code <= _BASIC_PLANE_MAX:
        return f"\\u{code:04x}"
    raw = chr(code).encode("utf-16-be")
    return "".join(f"\\u{raw[at : at + 2].hex()}" for at in (0, 2))
