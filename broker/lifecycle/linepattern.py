"""Patterns of a log search: find the next line that matches in many lines at once, with RE2.

RE2 takes time linear in the text for every pattern, has a bound for its memory, and gives up the GIL while it searches.
It never lets a match go beyond a line (`never_nl`). A line is searched without its end and without colours, as
`client.loglines.Search` does it; bytes that are not UTF-8 match no character of a pattern but `.` and the like.

To prepare lines so takes longer than to search them. So they are first searched as they are for a pattern that allows
colours anywhere (`spanning`); only where that finds something are they prepared.

Source: R. Cox, "Regular expression matching in the wild", https://swtch.com/~rsc/regexp/regexp3.html
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, Protocol

from airunner.broker.lifecycle.spanning import COLOUR, spanning_regex, spanning_text
from airunner.protocol.errors import BadPattern

MEMORY_BYTES_MAX: Final = 2 * 1_048_576  # of a compiled pattern and of what RE2 remembers while it searches
PROGRAM_MAX: Final = 2_048  # instructions of a compiled pattern; the worst of them takes 0.1 s for 64 KiB
PATTERNS_KEPT: Final = 8  # compiled patterns that are kept for the next pages of their searches
_COLOURS: Final = re.compile(COLOUR.encode())
_RETURNS: Final = re.compile(rb"\r+\n")
_LINES: Final = "(?m)"  # ^ and $ match at the ends of lines
_BY_LINE: Final = re.compile(r"\\[AzC]|\(\?[A-Za-z]*[-m]")  # what would see that a text has several lines


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
        self._regex = regex
        self._compiled = _compiled(_LINES + pattern if regex else pattern, regex=regex, ignore_case=ignore_case)
        spans = pattern and not ignore_case and (regex or not self._returns)
        self._spanning = _spanning(pattern, regex=regex) if spans else None

    def is_absent(self, lines: bytes) -> bool:
        """Return whether surely no line matches, of whole lines that are not prepared."""
        return (
            self._spanning is not None
            and (self._regex or b"\x1b" in lines)  # plain text is otherwise searched in lines as they are
            and self._spanning.search(lines) is None
        )

    def prepared(self, lines: bytes) -> bytes:
        """Return whole lines as they are searched, as many as before; the same object if they are searched as is."""
        if self._returns and b"\r" in lines:
            lines = _RETURNS.sub(b"\n", lines)  # before colours, behind which a return belongs to the line
        if b"\x1b" in lines:
            lines = _COLOURS.sub(b"", lines)
        return _utf8(lines) if self._regex else lines

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
        return self._compiled.search(_utf8(text) if self._regex else text) is not None


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
def _spanning(pattern: str, *, regex: bool) -> _Compiled | None:
    """Compile what finds a pattern in lines with colours; None: it is not known, or too large."""
    spanning = spanning_regex(pattern) if regex else spanning_text(pattern)
    try:
        return None if spanning is None else _compiled((_LINES + spanning).encode(), regex=True, ignore_case=False)
    except BadPattern:
        return None


@lru_cache(maxsize=PATTERNS_KEPT)
def _compiled(pattern: str | bytes, *, regex: bool, ignore_case: bool) -> _Compiled:
    """Compile a pattern; to one of bytes, each byte of a text is a character. Raises `BadPattern`."""
    import re2  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs] - it has no types

    # As `Any`: google-re2 has no types.
    library: Any = re2
    options = library.Options()
    options.literal = not regex
    options.case_sensitive = not ignore_case
    options.never_nl = options.never_capture = True
    options.log_errors = False
    if isinstance(pattern, bytes):
        options.encoding = library.Options.Encoding.LATIN1
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
