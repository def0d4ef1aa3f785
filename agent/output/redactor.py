"""Redactor: removes secrets from an attempt's output and messages, before any of it reaches the disk. Pure.

A **pattern** is a secret's value, or a likely encoding of it (`patterns_of`, `wrapped_patterns_of`). Every occurrence
of a pattern is removed. Overlapping occurrences are merged, so that no part of either stays readable, and replaced by
one `[REDACTED]`.

A stream comes in pieces of any size, and the result does not depend on where it was split. Only the longest suffix of
the text that could be the start of a pattern is held back, until the next piece decides or the stream ends:

```
 …compiling foo.c   token=hunt │ er2 …        pattern: hunter2
 └─── returned at once ──┘└held┘
```

A secret in base64 or hexadecimal may be wrapped into lines. Such a pattern is found with white space anywhere after its
first four characters, at most as much white space as the pattern has characters.

Without secrets nothing is searched. Otherwise `bytes.find` searches for each pattern, at some 10 GB/s. A pattern that
may be wrapped is searched for in a copy of the text without white space; only if it is there, in the text itself. No
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

ENCODED_BYTES_MIN: Final = 6  # shortest secret whose encodings are patterns: shorter patterns would match everywhere
LINE_BYTES_MIN: Final = 8  # shortest line of a multi-line secret (such as a PEM key) that is a pattern of its own
TRUNCATED_BYTES_MIN: Final = 4  # a truncated secret at the end of a message's line is removed if this much is left
PATTERN_BYTES_MAX: Final = 1_024  # a longer pattern is split into several patterns of this length
PATTERNS_MAX: Final = 8_192  # with this many, throughput falls to a few MB/s; no real job needs so many
BASE64_COLUMNS: Final = (64, 76)  # line lengths to which `openssl` and `base64` wrap
HEAD_BYTES: Final = 4  # start of a wrapped pattern, without white space; a shorter one would match, and hold, much text
SPREAD_MAX: Final = 2  # a wrapped pattern spans at most this many times its length; up to that much is held back

_REPLACEMENT: Final = REDACTED.encode()
_ESCAPE: Final = re.compile("%[0-9A-F]{2}")  # an escaped byte in a URL
_IN_QUOTES: Final = re.compile(r'(["$`\\\\])')  # characters that a shell escapes within double quotes
_WHITE: Final = b" \t\r\n"
_MAYBE: Final = -1  # `_end_of`: the text ends before the pattern does
_NO: Final = -2  # `_end_of`: the pattern is not there


class TooManySecrets(Exception):
    """Secrets are too many or too long to be removed from the log."""

    def __init__(self) -> None:
        super().__init__(TooManySecrets.__doc__)


class Redactor:
    """Redactor: removes the patterns of `secrets` from streams and whole messages. Raises `TooManySecrets`."""

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
        """Redact a whole message. Its lines may be truncated: a partial secret at the end of a line is removed too."""
        if not self._patterns:
            return message
        whole = _bytes(message)
        spans = self.occurrences(whole)
        begin = 0
        for line in whole.split(b"\n"):
            partial = self.partial_offset(line)
            if len(line) - partial >= TRUNCATED_BYTES_MIN:
                spans.append((begin + partial, begin + len(line)))
            begin += len(line) + 1
        passed: list[bytes] = []
        at = 0
        for begin, end in _merged(spans):
            passed += (whole[at:begin], _REPLACEMENT)
            at = end
        return b"".join([*passed, whole[at:]]).decode("utf-8", "surrogateescape")

    @property
    def idle(self) -> bool:
        """Whether there is no secret to remove."""
        return not self._patterns

    def occurrences(self, text: bytes) -> list[tuple[int, int]]:
        """Return the spans of all patterns in `text`, sorted; overlapping spans are merged."""
        spans: list[tuple[int, int]] = []
        for pattern, period in self._patterns:
            at = text.find(pattern)
            while at >= 0:
                spans.append((at, at + len(pattern)))
                at = text.find(pattern, at + period)
        unwrapped = text.translate(None, _WHITE)
        for pattern, period in self._wrapped:
            if pattern not in unwrapped:
                continue
            head = pattern[:HEAD_BYTES]
            at = text.find(head)
            while at >= 0:
                end = _end_of(pattern, text, at)
                if end > 0:
                    spans.append((at, end))
                at = text.find(head, at + (period if end > 0 else 1))
        return _merged(spans)

    def partial_offset(self, text: bytes) -> int:
        """Return the offset of the longest suffix of `text` that is an incomplete pattern; len(text): no suffix is."""
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
            first = _wrapped_partial_offset(pattern, text, first)
        return first


class StreamRedactor:
    """Redactor of one stream, made by `Redactor.stream`."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""
        self._covered = 0  # bytes of `_held` that belong to a secret whose `[REDACTED]` was already returned

    def feed(self, piece: bytes) -> bytes:
        """Add a piece of the stream, and return the redacted bytes that may be logged now."""
        if self._redactor.idle:
            return piece
        text = self._held + piece if self._held else piece
        return self._pass(text, self._redactor.partial_offset(text))

    def finish(self) -> bytes:
        """Return the bytes that were held back, redacted: the stream has ended. A later piece begins another stream."""
        text = self._held
        return self._pass(text, len(text)) if text else b""

    def _pass(self, text: bytes, decided: int) -> bytes:
        """Redact `text` up to the offset `decided`, and hold back the rest."""
        spans = self._redactor.occurrences(text)
        if self._covered:
            spans = _merged([(0, self._covered), *spans])
        elif not spans:
            self._held = text[decided:]
            return text[:decided] if decided < len(text) else text
        passed: list[bytes] = []
        at = covered = 0
        for begin, end in spans:
            continues = begin == 0 and self._covered > 0
            if begin >= decided and not continues:
                break
            if not continues:
                passed += (text[at:begin], _REPLACEMENT)
            at = min(end, decided)
            covered = end - at
        passed.append(text[at:decided])
        self._held = text[decided:]
        self._covered = covered
        return b"".join(passed)


def patterns_of(secret: str) -> set[bytes]:
    """List a secret's patterns: value, value with CRLF (as in a terminal), lines, base64 lines, URL, JSON, shell."""
    patterns: set[bytes] = set()
    for value in _values(secret):
        raw = _bytes(value)
        patterns |= {raw, raw.replace(b"\n", b"\r\n")}
        patterns |= {line for line in raw.splitlines() if len(line) >= LINE_BYTES_MIN}
        if len(raw) >= ENCODED_BYTES_MIN:
            patterns.update(_in_base64_lines(raw), _in_urls(raw), _in_json(value), _in_shells(value))
    return patterns


def wrapped_patterns_of(secret: str) -> set[bytes]:
    """List a secret's base64 and hexadecimal encodings, which may be wrapped after their first `HEAD_BYTES`."""
    raws = (_bytes(value) for value in _values(secret))
    return {pattern for raw in raws if len(raw) >= ENCODED_BYTES_MIN for pattern in (*_in_base64(raw), *_in_hex(raw))}


def _values(secret: str) -> set[str]:
    return ({secret, secret.strip()} if len(_bytes(secret.strip())) >= ENCODED_BYTES_MIN else {secret}) - {""}


def _bytes(text: str) -> bytes:
    """Encode text to the bytes that a process reads or writes, which need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _in_base64(raw: bytes) -> Iterator[bytes]:
    """List a secret's encodings within a longer base64 text, at each of the three possible offsets.

    The first and last characters also encode bits of the surrounding bytes, so they are left out: they reveal a few
    bits. A line may end before the first complete group of four, so a second pattern begins with that group.
    """
    for ahead, shared, whole in ((0, 0, 0), (1, 2, 4), (2, 3, 4)):
        encoded = base64.b64encode(bytes(ahead) + raw)[: (ahead + len(raw)) * 8 // 6]
        for pattern in (encoded[shared:], encoded[whole:]):
            yield pattern
            yield pattern.translate(bytes.maketrans(b"+/", b"-_"))


def _in_base64_lines(raw: bytes) -> Iterator[bytes]:
    """List the lines of a wrapped base64 encoding: a log may prefix each line, for example with a timestamp."""
    alone = base64.b64encode(raw)[: len(raw) * 8 // 6]
    for columns in BASE64_COLUMNS:
        if len(alone) > columns:
            lines = (alone[at : at + columns] for at in range(0, len(alone), columns))
            yield from (line for line in lines if len(line) >= LINE_BYTES_MIN)


def _in_hex(raw: bytes) -> Iterator[bytes]:
    """List a secret's hexadecimal encodings in both cases; also without the first byte, after which a line may end."""
    for part in (raw, raw[1:]):
        yield part.hex().encode()
        yield part.hex().upper().encode()


def _in_urls(raw: bytes) -> Iterator[bytes]:
    """Quote a secret as for a URL or a form, with upper- and lower-case escapes (%2F, %2f)."""
    for quoted in (quote(raw, safe=""), quote(raw), quote(raw, safe="!'()*"), quote_plus(raw)):
        yield quoted.encode()
        yield _ESCAPE.sub(lambda escape: escape[0].lower(), quoted).encode()


def _in_json(value: str) -> Iterator[bytes]:
    """Escape a secret as within a JSON string, with `/` and with its escape."""
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
    """Return where the `pattern` that begins at `begin` ends, white space in it skipped; else `_NO` or `_MAYBE`."""
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


def _wrapped_partial_offset(pattern: bytes, text: bytes, before: int) -> int:
    """Return the offset of the longest suffix of `text` that may become `pattern`, or `before` if that is smaller."""
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
    """Split a pattern into parts of at most `PATTERN_BYTES_MAX`, of which the last two may overlap."""
    for at in range(0, max(1, len(pattern) - PATTERN_BYTES_MAX), PATTERN_BYTES_MAX):
        yield pattern[at : at + PATTERN_BYTES_MAX]
    yield pattern[-PATTERN_BYTES_MAX:]


def _period(pattern: bytes) -> int:
    """Return the smallest distance between the beginnings of two occurrences of `pattern`."""
    at = pattern.find(pattern[:1], 1)
    while at >= 0:
        if pattern.startswith(pattern[at:]):
            return at
        at = pattern.find(pattern[:1], at + 1)
    return len(pattern)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort the spans, and merge those that overlap."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged
