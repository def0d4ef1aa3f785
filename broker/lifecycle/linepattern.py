"""Patterns of a log search: find the next line that matches in many lines at once, with RE2.

RE2 takes time linear in the text for every pattern, has a bound for its memory, and gives up the GIL while it searches.
It never lets a match go beyond a line (`never_nl`). A line is searched without its end and without colours, as
`client.loglines.Search` does it; bytes that are not UTF-8 match no character of a pattern but `.` and the like.

To remove colours takes longer than to search. So plain text is first searched in lines as they are, with colours
allowed between any two of its characters; only where that finds something are colours removed.

Source: R. Cox, "Regular expression matching in the wild", https://swtch.com/~rsc/regexp/regexp3.html
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, Protocol

from airunner.protocol.errors import BadPattern

MEMORY_BYTES_MAX: Final = 2 * 1_048_576  # of a compiled pattern and of what RE2 remembers while it searches
PROGRAM_MAX: Final = 2_048  # instructions of a compiled pattern; the worst of them takes 0.1 s for 64 KiB
PATTERNS_KEPT: Final = 8  # compiled patterns that are kept for the next pages of their searches
SPANNING_CHARS_MAX: Final = 128  # characters of plain text that is searched with colours between them
_COLOUR: Final = r"\x1b\[[0-?]*[ -/]*[@-~]"
_COLOURS: Final = re.compile(_COLOUR.encode())
_RETURNS: Final = re.compile(rb"\r+\n")
_LINES: Final = "(?m)"  # ^ and $ match at the ends of lines
_BY_LINE: Final = re.compile(r"\\[AzC]|\(\?[A-Za-z]*[-m]")  # what would see that a text has several lines
_ASCII_ONLY: Final = re.compile(r"(?:[^\\.\[]|\\[^A-Za-z0-9]|\\[bdsw]|\[(?!\^)[^\\\[\]]+\])*", re.ASCII)
"""Regular expressions of which no part matches a character that they do not name, as `.` and `[^a]` do."""


class _Found(Protocol):
    def start(self) -> int: ...


class _Compiled(Protocol):
    programsize: int

    def search(self, text: bytes, pos: int | None = None, endpos: int | None = None) -> _Found | None: ...


class LinePattern:
    """Pattern of a line: a regular expression or plain text. Raises `BadPattern`: RE2 does not accept it."""

    def __init__(self, pattern: str, *, regex: bool, ignore_case: bool) -> None:
        self.finds_all = not pattern
        self._by_line = regex and _BY_LINE.search(pattern) is not None
        self._returns = regex or "\r" in pattern
        self._any_bytes = regex and not (pattern.isascii() and _ASCII_ONLY.fullmatch(pattern))
        self._compiled = _compiled(_LINES + pattern if regex else pattern, regex=regex, ignore_case=ignore_case)
        spans = not (regex or ignore_case or self._returns) and pattern.isascii()
        self._spanned = pattern if spans and 0 < len(pattern) <= SPANNING_CHARS_MAX else None

    def is_absent(self, lines: bytes) -> bool:
        """Return whether surely no line matches, of whole lines with colours; False may be chance."""
        if self._spanned is None or b"\x1b" not in lines:
            return False
        return _spanning(self._spanned).search(lines) is None

    def prepared(self, lines: bytes) -> bytes:
        """Return whole lines as they are searched, as many as before; the same object if they are searched as is."""
        if b"\x1b" in lines:
            lines = _COLOURS.sub(b"", lines)
        if self._returns and b"\r" in lines:
            lines = _RETURNS.sub(b"\n", lines)
        return _utf8(lines) if self._any_bytes else lines

    def find(self, lines: bytes, start: int) -> int:
        """Return where the next match begins in prepared whole lines, from the beginning of a line on; -1: nowhere."""
        if self.finds_all:
            return start if start < len(lines) else -1
        if not self._by_line:
            found = self._compiled.search(lines, start)
            return found.start() if found is not None and found.start() < len(lines) else -1
        while start < len(lines):
            end = lines.index(b"\n", start)
            if self._compiled.search(lines[start:end]) is not None:
                return start
            start = end + 1
        return -1

    def matches(self, line: bytes) -> bool:
        """Return whether one line matches, with or without its end."""
        if self.finds_all:
            return True
        text = line.rstrip(b"\r\n")
        text = _COLOURS.sub(b"", text) if b"\x1b" in text else text
        return self._compiled.search(_utf8(text) if self._any_bytes else text) is not None


def _utf8(text: bytes) -> bytes:
    """Encode each byte that is not UTF-8 as a surrogate, which to RE2 is one character that no pattern names."""
    if text.isascii():
        return text
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode(errors="surrogateescape").encode(errors="surrogatepass")
    return text


@lru_cache(maxsize=PATTERNS_KEPT)
def _spanning(text: str) -> _Compiled:
    """Compile a pattern of this text with colours between any two of its characters."""
    return _compiled(f"(?:{_COLOUR})*".join(map(re.escape, text)), regex=True, ignore_case=False)


@lru_cache(maxsize=PATTERNS_KEPT)
def _compiled(pattern: str, *, regex: bool, ignore_case: bool) -> _Compiled:
    """Compile a pattern. Raises `BadPattern`."""
    import re2  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs] - it has no types

    # As `Any`: google-re2 has no types.
    library: Any = re2
    options = library.Options()
    options.literal = not regex
    options.case_sensitive = not ignore_case
    options.never_nl = options.never_capture = True
    options.log_errors = False
    options.max_mem = MEMORY_BYTES_MAX
    try:
        compiled: _Compiled = library.compile(pattern, options)
    except library.error as error:
        reason = error.args[0].decode(errors="replace").replace(_LINES, "", 1)
        raise BadPattern(f"{reason}; a regular expression is one of RE2") from error
    finally:
        library.purge()  # its own cache would keep 128 patterns
    if compiled.programsize > PROGRAM_MAX:
        raise BadPattern
    return compiled
