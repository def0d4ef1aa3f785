"""Redactor: removes secrets from what an attempt writes, before any of it reaches the disk. Pure.

Every occurrence of a **pattern** is covered: a secret's value and its likely encodings (see `patterns_of`). Where
occurrences overlap they are covered together, so no part of any is left readable; each stretch that is covered becomes
one `[REDACTED]`.

A stream comes in pieces of any size, and the result does not depend on where they were cut. Held back is only the
longest end of the text that may be the beginning of a pattern, until the next piece decides or the stream ends:

```
 …compiling foo.c   token=hunt │ er2 …        pattern: hunter2
 └──── goes on at once ──┘└held┘
```

base64 and hexadecimal are wrapped at some column, wherever the secret begins in what is encoded: such a pattern is
found whatever white space stands in it behind its first four characters, up to as much as itself.

Without secrets nothing is searched. With them each pattern is searched for by `bytes.find`, at some 10 GB/s a pattern;
patterns that may be wrapped are searched for in the text without its white space and, if found, in the text itself. No
Python runs per byte.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

from airunner.protocol.redaction import REDACTED

ENCODED_BYTES_MIN: Final = 6  # encodings of shorter secrets would be found everywhere
LINE_BYTES_MIN: Final = 8  # of a secret of several lines, such as a key in PEM
CUT_BYTES_MIN: Final = 4  # of a secret that the end of a line has cut
PATTERN_BYTES_MAX: Final = 1_024  # longer patterns are searched for in parts of this length
PATTERNS_MAX: Final = 8_192  # with so many some MB a second are redacted; a job needs fewer
BASE64_COLUMNS: Final = (64, 76)  # at which `openssl` and `base64` wrap
HEAD_BYTES: Final = 4  # of a wrapped pattern, in one piece: with fewer the end of every other line would be held
SPREAD_MAX: Final = 2  # times its own length that a wrapped pattern takes; so much of it is held

_MARK: Final = REDACTED.encode()
_ESCAPE: Final = re.compile("%[0-9A-F]{2}")
_IN_QUOTES: Final = re.compile(r'(["$`\\\\])')
_WHITE: Final = b" \t\r\n"
_MAYBE: Final = -1  # as the text ends first
_NO: Final = -2


class TooManySecrets(Exception):
    """Secrets too many or too long to be kept out of a log."""

    def __init__(self) -> None:
        super().__init__(TooManySecrets.__doc__)


class Redactor:
    """Redactor of the patterns of `secrets`, in streams and in whole messages. Raises `TooManySecrets`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = set(secrets)
        found = {part for secret in known for pattern in patterns_of(secret) for part in _parts(pattern)}
        wrapped = {part for secret in known for pattern in wrapped_patterns_of(secret) for part in _parts(pattern)}
        if len(found) + len(wrapped) > PATTERNS_MAX:
            raise TooManySecrets
        self._patterns = tuple((pattern, _period(pattern)) for pattern in sorted(found))
        self._wrapped = tuple((pattern, _period(pattern)) for pattern in sorted(wrapped))
        self._longest = max(map(len, found), default=0)

    def stream(self) -> StreamRedactor:
        """Make the redactor of one stream of output."""
        return StreamRedactor(self)

    def text(self, message: str) -> str:
        """Redact a whole message. Its lines may have been cut to some length, and so a secret at the end of a line."""
        if not self._patterns:
            return message
        whole = _bytes(message)
        spans = self.occurrences(whole)
        begin = 0
        for line in whole.split(b"\n"):
            cut = self.undecided(line)
            if len(line) - cut >= CUT_BYTES_MIN:
                spans.append((begin + cut, begin + len(line)))
            begin += len(line) + 1
        passed: list[bytes] = []
        at = 0
        for begin, end in _joined(spans):
            passed += (whole[at:begin], _MARK)
            at = end
        return b"".join([*passed, whole[at:]]).decode("utf-8", "surrogateescape")

    @property
    def idle(self) -> bool:
        """Whether there is no secret to remove."""
        return not self._patterns

    def occurrences(self, text: bytes) -> list[tuple[int, int]]:
        """Find the patterns in `text`, in order, overlapping ones merged."""
        spans: list[tuple[int, int]] = []
        for pattern, period in self._patterns:
            at = text.find(pattern)
            while at >= 0:
                spans.append((at, at + len(pattern)))
                at = text.find(pattern, at + period)
        in_one_line = text.translate(None, _WHITE)
        for pattern, period in self._wrapped:
            if pattern not in in_one_line:
                continue
            head = pattern[:HEAD_BYTES]
            at = text.find(head)
            while at >= 0:
                end = _end_of(pattern, text, at)
                if end > 0:
                    spans.append((at, end))
                at = text.find(head, at + (period if end > 0 else 1))
        return _joined(spans)

    def undecided(self, text: bytes) -> int:
        """Find where the longest end of `text` begins that is the beginning, and not the whole, of a pattern."""
        tail = text[max(0, len(text) - self._longest + 1) :]
        first = len(tail)
        for pattern, _ in self._patterns:
            at = tail.find(pattern[:1], max(0, len(tail) - len(pattern) + 1), first)
            while at >= 0:
                if pattern.startswith(tail[at:]):
                    first = at
                    break
                at = tail.find(pattern[:1], at + 1, first)
        first += len(text) - len(tail)
        for pattern, _ in self._wrapped:
            first = _may_begin(pattern, text, first)
        return first


class StreamRedactor:
    """Redactor of one stream, made by `Redactor.stream`."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""
        self._covered = 0  # bytes of `_held` that belong to a stretch whose mark has been passed on

    def feed(self, piece: bytes) -> bytes:
        """Feed a piece in, and return what may be logged now."""
        if self._redactor.idle:
            return piece
        text = self._held + piece if self._held else piece
        return self._pass(text, self._redactor.undecided(text))

    def finish(self) -> bytes:
        """Return the rest, at the end of the stream. Another stream may begin."""
        text = self._held
        return self._pass(text, len(text)) if text else b""

    def _pass(self, text: bytes, decided: int) -> bytes:
        """Redact `text` up to `decided`, and hold the rest."""
        spans = self._redactor.occurrences(text)
        if self._covered:
            spans = _joined([(0, self._covered), *spans])
        elif not spans:
            self._held = text[decided:]
            return text[:decided] if decided < len(text) else text
        passed: list[bytes] = []
        at = covered = 0
        for begin, end in spans:
            goes_on = begin == 0 and self._covered > 0
            if begin >= decided and not goes_on:
                break
            if not goes_on:
                passed += (text[at:begin], _MARK)
            at = min(end, decided)
            covered = end - at
        passed.append(text[at:decided])
        self._held = text[decided:]
        self._covered = covered
        return b"".join(passed)


def patterns_of(secret: str) -> set[bytes]:
    """List the patterns of a secret: itself, as a terminal shows it, its lines, and its common encodings."""
    patterns: set[bytes] = set()
    for value in _values(secret):
        raw = _bytes(value)
        patterns |= {raw, raw.replace(b"\n", b"\r\n")}
        patterns |= {line for line in raw.splitlines() if len(line) >= LINE_BYTES_MIN}
        if len(raw) >= ENCODED_BYTES_MIN:
            patterns.update(_in_base64_lines(raw), _in_urls(raw), _in_json(value), _in_shells(value))
    return patterns


def wrapped_patterns_of(secret: str) -> set[bytes]:
    """List the encodings of a secret that may be wrapped anywhere."""
    raws = (_bytes(value) for value in _values(secret))
    return {pattern for raw in raws if len(raw) >= ENCODED_BYTES_MIN for pattern in (*_in_base64(raw), *_in_hex(raw))}


def _values(secret: str) -> set[str]:
    return ({secret, secret.strip()} if len(_bytes(secret.strip())) >= ENCODED_BYTES_MIN else {secret}) - {""}


def _bytes(text: str) -> bytes:
    """Encode a secret as a file or a variable holds it, which need not be text."""
    return text.encode("utf-8", "surrogateescape")


def _in_base64(raw: bytes) -> Iterator[bytes]:
    """Encode a secret in base64 as part of anything longer.

    The characters at either end that neighbours have a share in are left out: they tell a few bits. What stands before
    the first whole four may be the end of a line, so there is a pattern without it.
    """
    for ahead, shared, whole in ((0, 0, 0), (1, 2, 4), (2, 3, 4)):
        encoded = base64.b64encode(bytes(ahead) + raw)[: (ahead + len(raw)) * 8 // 6]
        for pattern in (encoded[shared:], encoded[whole:]):
            yield pattern
            yield pattern.translate(bytes.maketrans(b"+/", b"-_"))


def _in_base64_lines(raw: bytes) -> Iterator[bytes]:
    """List the lines of a base64 encoding, which may each have something before them, such as a time."""
    alone = base64.b64encode(raw)[: len(raw) * 8 // 6]
    for columns in BASE64_COLUMNS:
        if len(alone) > columns:
            lines = (alone[at : at + columns] for at in range(0, len(alone), columns))
            yield from (line for line in lines if len(line) >= LINE_BYTES_MIN)


def _in_hex(raw: bytes) -> Iterator[bytes]:
    """List hexadecimal digits in either case; the first byte may be the last of a line."""
    for part in (raw, raw[1:]):
        yield part.hex().encode()
        yield part.hex().upper().encode()


def _in_urls(raw: bytes) -> Iterator[bytes]:
    """Quote a secret as for a URL or a form, with upper- and lower-case digits."""
    for quoted in (quote(raw, safe=""), quote(raw), quote(raw, safe="!'()*"), quote_plus(raw)):
        yield quoted.encode()
        yield _ESCAPE.sub(lambda escape: escape[0].lower(), quoted).encode()


def _in_json(value: str) -> Iterator[bytes]:
    """Quote a secret as within a JSON string."""
    for ascii_only in (True, False):
        escaped = _bytes(json.dumps(value, ensure_ascii=ascii_only)[1:-1])
        yield escaped
        yield escaped.replace(b"/", b"\\/")


def _in_shells(value: str) -> Iterator[bytes]:
    """Quote a secret as `bash -x`, `dash -x` and `export -p` do."""
    yield _bytes(value.replace("'", r"'\''"))
    yield _bytes(value.replace("'", "'\"'\"'"))
    yield _bytes(_IN_QUOTES.sub(r"\\\1", value))


def _end_of(pattern: bytes, text: bytes, begin: int) -> int:
    """Find where `pattern`, with any white space in it, ends if it begins at `begin`; else `_NO` or `_MAYBE`."""
    at, left = begin, len(pattern)
    while left:
        if at - begin + left > SPREAD_MAX * len(pattern):
            return _NO
        piece = text[at : at + left]
        if not piece:
            return _MAYBE
        there = piece.translate(None, _WHITE)
        if not pattern.startswith(there, len(pattern) - left):
            return _NO
        at += len(piece)
        left -= len(there)
    return at


def _may_begin(pattern: bytes, text: bytes, before: int) -> int:
    """Find where the longest end of `text` begins that may become `pattern`; `before` if it is not before that."""
    head = pattern[:HEAD_BYTES]
    at = text.find(head, max(0, len(text) - SPREAD_MAX * len(pattern)), before + len(head) - 1)
    while at >= 0:
        if _end_of(pattern, text, at) == _MAYBE:
            return at
        at = text.find(head, at + 1, before + len(head) - 1)
    for at in range(max(0, len(text) - len(head) + 1), before):
        if head.startswith(text[at:]):
            return at
    return before


def _parts(pattern: bytes) -> Iterator[bytes]:
    """Return the pattern, or parts that cover it."""
    for at in range(0, max(1, len(pattern) - PATTERN_BYTES_MAX), PATTERN_BYTES_MAX):
        yield pattern[at : at + PATTERN_BYTES_MAX]
    yield pattern[-PATTERN_BYTES_MAX:]


def _period(pattern: bytes) -> int:
    """Return how far after one occurrence the next may begin at the earliest."""
    at = pattern.find(pattern[:1], 1)
    while at >= 0:
        if pattern.startswith(pattern[at:]):
            return at
        at = pattern.find(pattern[:1], at + 1)
    return len(pattern)


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort the spans, and merge those that overlap."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if joined and begin < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined
