"""Patterns of a secret: the byte strings by which the redactor finds its value in output. Pure.

A **literal** pattern is searched for as it is. A **folded** pattern is searched for in the readings of the output
(`escapes.py`), so it stands for every way to quote it, to wrap it and to escape its characters.

- The value, and each of its lines, is one folded pattern: its form in JSON, XML, URLs and shells is the same pattern.
- A value that is itself escaped, or the base64 of a text, is also searched for as that text, with each of its lines.
- Base64 and hexadecimal of the value are patterns, and so are base64 and hexadecimal of its usual forms (`_forms_of`).
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final
from urllib.parse import quote, quote_plus

from msgspec import Struct

from airunner.agent.output.escapes import WHITE, Reading, folded, readings

PATTERN_BYTES_MIN: Final = 6  # shortest pattern except a short value itself: shorter ones would match everywhere
PATTERN_BYTES_MAX: Final = 1_024  # a longer pattern is split into several patterns of this length
TWICE_BYTES_MAX: Final = 4_096  # longest secret whose encodings of encodings are patterns; a PEM key is shorter
HEAD_BYTES: Final = 4  # first bytes of a folded pattern; those before white space stay, or many lines' ends would wait
SPREAD_MAX: Final = 16  # a folded pattern with escapes and what is left out spans at most this many times its length
BASE64_CHARS_MIN: Final = 16  # shortest value that is taken for base64 if it decodes to text
BASE64_COLUMNS: Final = (64, 76)  # line lengths to which `openssl` and `base64` wrap

_BASE64_OF_URLS: Final = str.maketrans("-_", "+/")
_LATIN_MAX: Final = 0xFF
_FOR_SHELLS: Final = re.compile(rb"[^A-Za-z0-9_@%+=:,./\x80-\xff\n-]")  # characters that `printf %q` escapes


class Fold(Struct, frozen=True):
    """Limits of an occurrence of a folded pattern."""

    head: int  # first bytes of which those before white space stay readable
    spread: int  # bytes that the occurrence may span

    def widened(self, other: Fold) -> Fold:
        """Return limits that allow what either allows."""
        return Fold(min(self.head, other.head), max(self.spread, other.spread))


class Patterns:
    """Patterns of secrets: `literal` ones, and `folds`, the folded ones with their limits."""

    def __init__(self) -> None:
        self.literal: set[bytes] = set()
        self.folds: dict[bytes, Fold] = {}

    def __len__(self) -> int:
        return len(self.literal) + len(self.folds)

    def add_secret(self, secret: str) -> None:
        """Add the patterns of a value: itself, its lines, and its base64 and hexadecimal encodings."""
        raw = _bytes(secret)
        if not raw:
            return
        bare = raw.strip(WHITE)
        for value in {raw, *_long_ones(bare, b" ".join(bare.split()))}:
            self._add_literal(value)
            self._add_literal(value.replace(b"\n", b"\r\n"))
        if len(raw) < PATTERN_BYTES_MIN:
            return
        for text in (raw, *_variants_of(raw)):
            for part in (text, *text.splitlines()):
                self._add(part.strip(WHITE))
        for value in {raw, *_long_ones(bare)}:
            if len(folded(value)) < PATTERN_BYTES_MIN:
                for form in _forms_of(value):
                    self._add(form)
            for encoded in (*_in_base64(value), *_in_hex(value), *_in_base64_lines(value)):
                self._add(encoded)

    def add_encodings(self, secret: str) -> None:
        """Add the base64 and hexadecimal encodings of the encodings of a value."""
        bare = _bytes(secret).strip(WHITE)
        if PATTERN_BYTES_MIN <= len(bare) <= TWICE_BYTES_MAX:
            for form in {*_forms_of(bare), *_in_base64(bare), *_in_hex(bare)}:
                for encoded in (*_in_base64(form), *_in_hex(form)):
                    self._add(encoded)

    def _add(self, text: bytes) -> None:
        """Add a text as a folded pattern; as a literal one if too little of it is left when folded."""
        pattern = folded(text)
        if len(pattern) < PATTERN_BYTES_MIN:
            if len(text) >= PATTERN_BYTES_MIN:
                self._add_literal(text)
            return
        spread = SPREAD_MAX * -(-len(text) // len(pattern))
        head = min(HEAD_BYTES, len(folded(text.split(maxsplit=1)[0])) or 1)
        for part in _parts(pattern):
            limits = Fold(head, spread * len(part))
            self.folds[part] = self.folds.get(part, limits).widened(limits)
            head = HEAD_BYTES

    def _add_literal(self, text: bytes) -> None:
        self.literal.update(_parts(text))


def patterns_of(secrets: Iterable[str], count_max: int) -> Patterns:
    """Return the patterns of secrets; those of encodings in encodings only up to `count_max`, shortest secret first."""
    known = sorted({text for secret in secrets for text in (secret, *_text_in_base64(secret))}, key=len)
    patterns = Patterns()
    for secret in known:
        patterns.add_secret(secret)
    for secret in known:
        if len(patterns) < count_max:
            patterns.add_encodings(secret)
    return patterns


def _text_in_base64(secret: str) -> Iterator[str]:
    """Yield the text of which a value is the base64, such as that of a key file; a token decodes to no text."""
    bare = "".join(secret.split()).rstrip("=")
    if len(bare) >= BASE64_CHARS_MIN:
        with suppress(ValueError):
            plain = bare.translate(_BASE64_OF_URLS) + "=" * (-len(bare) % 4)
            text = base64.b64decode(plain, validate=True).decode()
            if all(char.isprintable() or char.isspace() for char in text):
                yield text


def _bytes(text: str) -> bytes:
    """Encode text to the bytes that a process reads or writes, which need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _long_ones(*texts: bytes) -> Iterator[bytes]:
    return (text for text in texts if len(text) >= PATTERN_BYTES_MIN)


def _variants_of(raw: bytes) -> Iterator[bytes]:
    """Yield what a value becomes if it is read as escaped, in a form, and in Latin-1."""
    yield raw.replace(b" ", b"+")
    yield b"+".join(raw.split())
    yield from (reading.text for reading in readings(Reading(raw)))
    text = raw.decode("utf-8", "surrogateescape")
    yield b"".join(char.encode("latin-1" if ord(char) <= _LATIN_MAX else "utf-8", "surrogateescape") for char in text)


def _forms_of(raw: bytes) -> Iterator[bytes]:
    """Yield the usual forms of a value in URLs, JSON, XML, shells and wrapped base64, and folded into one line."""
    yield b" ".join(raw.split())
    yield raw.replace(b"\n", b"\r\n")
    yield base64.encodebytes(raw)
    for quoted in (quote(raw, safe=""), quote(raw), quote(raw, safe="!'()*"), quote_plus(raw)):
        yield quoted.encode()
        yield _with_lower_escapes(quoted).encode()
    yield from (raw.replace(b"'", mark) for mark in (b"'\\''", b"'\"'\"'", b"\\'", b"''"))
    yield _FOR_SHELLS.sub(rb"\\\g<0>", raw)
    try:
        value = raw.decode()
    except UnicodeDecodeError:
        return
    for ascii_only in (True, False):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield escaped.encode()
        yield escaped.replace("/", "\\/").encode()
        yield _for_pages(escaped).encode()
    yield html.escape(value).encode()
    yield html.escape(value, quote=False).encode()


def _with_lower_escapes(quoted: str) -> str:
    first, *rest = quoted.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in rest)])


def _for_pages(escaped: str) -> str:
    r"""Escape `<`, `>` and `&` in JSON as Go does: `\u003c`."""
    return escaped.translate({ord(char): f"\\u{ord(char):04x}" for char in "<>&"})


def _in_base64(raw: bytes) -> Iterator[bytes]:
    """List a secret's encodings within a longer base64 text, at each of the three possible offsets.

    The first and last characters also encode bits of the surrounding bytes, so they are left out: they reveal a few
    bits.
    """
    for ahead, shared in ((0, 0), (1, 2), (2, 3)):
        yield base64.b64encode(bytes(ahead) + raw)[shared : (ahead + len(raw)) * 8 // 6]


def _in_base64_lines(raw: bytes) -> Iterator[bytes]:
    """List the lines of a wrapped base64 encoding: a log may prefix each line, for example with a timestamp."""
    alone = base64.b64encode(raw)[: len(raw) * 8 // 6]
    for columns in BASE64_COLUMNS:
        if len(alone) > columns:
            yield from (alone[at : at + columns] for at in range(0, len(alone), columns))


def _in_hex(raw: bytes) -> Iterator[bytes]:
    """List a secret's hexadecimal encodings in both cases."""
    yield raw.hex().encode()
    yield raw.hex().upper().encode()


def _parts(pattern: bytes) -> Iterator[bytes]:
    """Split a pattern into parts of at most `PATTERN_BYTES_MAX`; each covers the first bytes of the next."""
    for at in range(0, max(1, len(pattern) - PATTERN_BYTES_MAX), PATTERN_BYTES_MAX - HEAD_BYTES):
        yield pattern[at : at + PATTERN_BYTES_MAX]
    yield pattern[-PATTERN_BYTES_MAX:]
