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

Many lines end as a pattern begins. So of an occurrence with white space among its first `HEAD_BYTES`, what is before
that is not covered: it is returned at once, and only remembered, so that the rest is recognised.

Without secrets nothing is searched. No Python runs per byte, except in the last bytes of a piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from airunner.agent.output.escapes import LEVELS_MAX, Reading, folded, readings
from airunner.agent.output.patternindex import START, PatternIndex
from airunner.agent.output.patterns import HEAD_BYTES, Fold, patterns_of
from airunner.protocol.redaction import REDACTED, merged_spans

TRUNCATED_BYTES_MIN: Final = 4  # a truncated secret at the end of a message's line is removed if this much is left
SHORT_BYTES: Final = 1_024  # end of a text that is looked at first: usually no pattern that is longer ends there
SURE_BYTES: Final = 128  # first bytes of a short end that may be read in another way than in a longer one: an escape
PATTERNS_MAX: Final = 16_384  # they take some 50 MB of memory; no real job needs so many

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
        self._long = b"\n".join(pattern for pattern in patterns.folds if len(pattern) > SURE_BYTES)
        self._tail = max([self._literal.longest, *(fold.spread for fold in patterns.folds.values())])

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
            _, partial = self.partial(line)
            if len(line) - partial >= TRUNCATED_BYTES_MIN:
                spans.append((begin + partial, begin + len(line)))
            begin += len(line) + 1
        passed: list[bytes] = []
        at = 0
        for begin, end in merged_spans(spans):
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
            for reading in readings(Reading(text).uncoloured()):
                spans += self._occurrences_in(reading)
        return merged_spans(spans)

    def partial(self, text: bytes) -> tuple[int, int]:
        """Return where the longest suffix of `text` begins that may become a pattern, and where its cover would.

        What is between them is less than `HEAD_BYTES` of a pattern, and white space: it stays readable.
        """
        tail = text[max(0, len(text) - self._tail) :]
        ahead = len(text) - len(tail)
        begin = covered = next((ahead + at for at, _ in self._literal.begun(tail)), len(text))
        if self._folds:
            ends = self._ends_of(tail[-SHORT_BYTES:])
            if len(tail) > SHORT_BYTES and self._may_begin_before(ends):
                ends = self._ends_of(tail)
            for reading in ends:
                ahead = len(text) - len(reading.original)
                for at, after in self._partials_in(reading):
                    begin, covered = min(begin, ahead + at), min(covered, ahead + after)
        return begin, covered

    def _ends_of(self, tail: bytes) -> list[Reading]:
        """List the readings of a text's end, also without an escape or a colour that is not finished."""
        return list(self._ends(Reading(tail).uncoloured(), LEVELS_MAX))

    def _ends(self, reading: Reading, levels: int) -> Iterator[Reading]:
        yield reading
        for finished in reading.finished():
            yield finished
            reading = finished
        for form in reading.forms(unfinished=True):
            if form is not reading:
                yield from self._ends(form, levels)
            elif levels and (deeper := form.decoded()) is not form:
                yield from self._ends(deeper, levels - 1)

    def _may_begin_before(self, ends: Sequence[Reading]) -> bool:
        """Return whether a pattern that is not complete may begin before a short tail, of which these are readings."""
        texts = [folded(reading.text) for reading in ends]
        within = {text[-SURE_BYTES:] for text in texts}  # such a pattern has all of these bytes
        return min(map(len, texts)) < 2 * SURE_BYTES or any(text in self._long for text in within)

    def _occurrences_in(self, reading: Reading) -> Iterator[tuple[int, int]]:
        kept: list[int] = []
        for at, pattern in self._folded.found(folded(reading.text)):
            kept = kept or reading.kept()
            begin, end = reading.origin(kept[at]), reading.end(kept[at + len(pattern) - 1])
            fold = self._folds[pattern]
            if end - begin <= fold.spread:
                yield reading.origin_after_white(kept[at], fold.head), end

    def _partials_in(self, reading: Reading) -> Iterator[tuple[int, int]]:
        """Yield the suffixes of a reading that may become patterns, longest first, and no more than can matter.

        Each comes as `partial` returns it. An escape that is not finished is one too.
        """
        if reading.hidden:
            end = len(reading.text)
            yield reading.origin(end), reading.origin_after_white(end, HEAD_BYTES)
        text = folded(reading.text)
        least = len(reading.original)
        for at, pattern in self._folded.begun(text):
            offset = reading.offset_of_last(len(text) - at)
            begin = reading.origin(offset)
            if begin >= least:
                return
            fold = self._folds[pattern] if pattern else self._begins[text[at:]]
            if len(reading.original) - begin <= fold.spread:
                after = reading.origin_after_white(offset, fold.head)
                least = min(least, after)
                yield begin, after


class StreamRedactor:
    """Redactor of one stream, made by `Redactor.stream`."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._kept = b""  # the end of the stream so far: its first `_passed` bytes were returned
        self._passed = 0
        self._found: list[tuple[int, int]] = []  # spans of secrets in `_kept` that end after these
        self._marked = False  # whether the `[REDACTED]` of the first of these was returned

    def feed(self, piece: bytes) -> bytes:
        """Add a piece of the stream, and return the redacted bytes that may be logged now."""
        if self._redactor.idle:
            return piece
        text = self._kept + piece if self._kept else piece
        return self._pass(text, *self._redactor.partial(text))

    def finish(self) -> bytes:
        """Return the bytes that were held back, redacted: the stream has ended. A later piece begins another stream."""
        text = self._kept
        return self._pass(text, len(text), len(text)) if text else b""

    def _pass(self, text: bytes, begin: int, decided: int) -> bytes:
        """Redact `text` up to the offset `decided`, hold back the rest, and remember what is after `begin`."""
        since = self._passed
        decided = max(decided, since)
        spans = self._redactor.occurrences(text)
        if since or self._found:
            spans = merged_spans([(max(at, since), end) for at, end in (*self._found, *spans) if end > since])
        self._kept = text[begin:]
        self._passed = decided - begin
        self._found = [(at - begin, end - begin) for at, end in spans if end > decided]
        if not spans:
            return text[since:decided] if since or decided < len(text) else text
        passed: list[bytes] = []
        at = since
        marked = self._marked
        for first, end in spans:
            if first >= decided and not marked:
                break
            if not marked:
                passed += (text[at:first], _REPLACEMENT)
            at = min(end, decided)
            marked = False
            self._marked = end > decided
        passed.append(text[at:decided])
        return b"".join(passed)


def _begins(folds: Mapping[bytes, Fold]) -> dict[bytes, Fold]:
    """Return the limits of suffixes that are too short for an index to know their pattern."""
    begins: dict[bytes, Fold] = {}
    for pattern, fold in folds.items():
        for size in range(1, START):
            begins[pattern[:size]] = begins.get(pattern[:size], fold).widened(fold)
    return begins
