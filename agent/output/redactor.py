"""Redactor: removes secrets from an attempt's output and messages, before any of it reaches the disk. Pure.

Every occurrence of a secret's patterns (`patterns.py`) is removed: of the literal ones in the text itself, of the
folded ones in the text's readings (`escapes.py`). Overlapping occurrences are merged, so that no part of either stays
readable, and replaced by one `[REDACTED]`.

A stream comes in pieces of any size, and no more of a secret stays wherever it was split. Only the longest suffix of
the text that could be the start of an occurrence is held back, until the next piece decides or the stream ends:

```
 …compiling foo.c   token=hunt │ er2 …        pattern: hunter2
 └─── returned at once ──┘└held┘
```

Without secrets nothing is searched. No Python runs per byte, except in the last bytes of a piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from airunner.agent.output.escapes import LEVELS_MAX, Reading, folded
from airunner.agent.output.patternindex import START, PatternIndex
from airunner.agent.output.patterns import Fold, patterns_of
from airunner.protocol.redaction import REDACTED

TRUNCATED_BYTES_MIN: Final = 4  # a truncated secret at the end of a message's line is removed if this much is left
PATTERNS_MAX: Final = 16_384  # they take some 50 MB of memory; no real job needs so many
EXPANSION_MAX: Final = 16  # bytes of one byte of a secret in escapes and white space, up to which its end is waited for

_REPLACEMENT: Final = REDACTED.encode()


class TooManySecrets(Exception):
    """Secrets are too many or too long to be removed from the log."""

    def __init__(self) -> None:
        super().__init__(TooManySecrets.__doc__)


class Redactor:
    """Redactor: removes the patterns of `secrets` from streams and whole messages. Raises `TooManySecrets`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        patterns = patterns_of(secrets, PATTERNS_MAX * 3 // 4)
        if len(patterns) > PATTERNS_MAX:
            raise TooManySecrets
        self._literal = PatternIndex(patterns.literal)
        self._folded = PatternIndex(patterns.folds)
        self._folds = patterns.folds
        self._begins = _begins(patterns.folds)
        self._tail = max(self._literal.longest, EXPANSION_MAX * self._folded.longest)

    def stream(self) -> StreamRedactor:
        """Make the redactor of one stream of output."""
        return StreamRedactor(self)

    def text(self, message: str) -> str:
        """Redact a whole message. Its lines may be truncated: a partial secret at the end of a line is removed too."""
        if self.idle:
            return message
        whole = message.encode("utf-8", "surrogateescape")
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
        return not self._literal.longest

    def occurrences(self, text: bytes) -> list[tuple[int, int]]:
        """Return the spans of all patterns in `text`, sorted; overlapping spans are merged."""
        spans = [(at, at + len(pattern)) for at, pattern in self._literal.found(text)]
        if self._folds:
            reading = Reading(text)
            spans += self._occurrences_in(reading)
            for _ in range(LEVELS_MAX):
                if (deeper := reading.decoded()) is reading:
                    break
                spans += self._occurrences_in(deeper)
                reading = deeper
        return _merged(spans)

    def partial_offset(self, text: bytes) -> int:
        """Return the offset of the longest suffix of `text` that may become a pattern; len(text): no suffix may."""
        tail = text[max(0, len(text) - self._tail) :]
        first = next((at for at, _ in self._literal.begun(tail)), len(tail))
        if self._folds:
            first = min(first, *self._partials_in(Reading(tail)), len(tail))
        return len(text) - len(tail) + first

    def _partials_in(self, reading: Reading) -> Iterator[int]:
        """Yield the offsets of incomplete patterns and escapes at the end of a reading and of the deeper ones."""
        for _ in range(LEVELS_MAX + 1):
            if (at := self._partial_in(reading)) is not None:
                yield at
            if (finished := reading.finished()) is not reading:
                yield finished.origins()[len(finished.text)]
                if (at := self._partial_in(finished)) is not None:
                    yield at
            if (deeper := finished.decoded()) is reading:
                return
            reading = deeper

    def _occurrences_in(self, reading: Reading) -> Iterator[tuple[int, int]]:
        kept: list[int] = []
        for at, pattern in self._folded.found(folded(reading.text)):
            kept = kept or reading.kept()
            begin, end = kept[at], kept[at + len(pattern) - 1] + 1
            if self._folds[pattern].allows(reading.text[begin:end]):
                origins = reading.origins()
                yield origins[begin], origins[end]

    def _partial_in(self, reading: Reading) -> int | None:
        """Return the offset in the original text of the longest suffix of a reading that may become a pattern."""
        text = folded(reading.text)
        for at, pattern in self._folded.begun(text):
            begin = reading.offset_of_last(len(text) - at)
            fold = self._folds[pattern] if pattern else self._begins[text[at:]]
            if fold.allows(reading.text[begin:]):
                return reading.origins()[begin]
        return None


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


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort the spans, and merge those that overlap."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def _begins(folds: Mapping[bytes, Fold]) -> dict[bytes, Fold]:
    """Return the limits of suffixes that are too short for an index to know their pattern."""
    begins: dict[bytes, Fold] = {}
    for pattern, fold in folds.items():
        for size in range(1, START):
            begins[pattern[:size]] = begins.get(pattern[:size], fold).widened(fold)
    return begins
