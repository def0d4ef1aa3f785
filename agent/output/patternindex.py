"""Index of patterns: finds all occurrences of many byte strings in a text, without Python code per byte. Pure.

`bytes.find` finds a pattern at some 4 GB/s, which is too slow for a hundred patterns. So long patterns are found by
sampling: each 4 or 8 bytes of the text that begin at a multiple of 4, 8 or 32 are looked up in a table of all parts of
the patterns that could be there. Only patterns with a part in the text are searched for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Final

FEW: Final = 16  # patterns that `bytes.find` finds faster than sampling does
_LONG: Final = 8
_SHORT: Final = 4
_SAMPLES: Final = ((_LONG, 4), (_LONG, 1), (_SHORT, 1))
"""Bytes of a sample, and of how many samples one is looked up; those for the longest patterns first."""

START: Final = _SHORT  # first bytes of a pattern by which `begun` looks for it


class PatternIndex:
    """Index of `patterns`, none of which is empty."""

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self._patterns = sorted(set(patterns))
        self._periods: dict[bytes, int] = {}  # of those that were found
        self._sampled: list[tuple[int, int, dict[int, list[bytes]]]] = []
        self._few = self._patterns
        for size, step in _SAMPLES:
            stride = size * step
            long = [pattern for pattern in self._few if len(pattern) >= size + stride - 1]
            if len(long) > FEW:
                self._sampled.append((size, step, _parts_of(long, size, stride)))
                self._few = [pattern for pattern in self._few if len(pattern) < size + stride - 1]
        self._starts = _parts_of((pattern for pattern in self._patterns if len(pattern) >= START), START, 1)
        self._shorts = {pattern[:size] for pattern in self._patterns for size in range(1, min(START, len(pattern)))}
        self.longest = max(map(len, self._patterns), default=0)

    def __len__(self) -> int:
        return len(self._patterns)

    def found(self, text: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the offset of each occurrence of each pattern."""
        for pattern in self._possible(text):
            at = text.find(pattern)
            while at >= 0:
                yield at, pattern
                if (period := self._periods.get(pattern)) is None:
                    period = self._periods[pattern] = _period(pattern)
                at = text.find(pattern, at + period)

    def begun(self, text: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield each suffix of `text` that is an incomplete pattern, longest first: its offset, and the pattern.

        The pattern of a suffix of less than `START` bytes is empty: there may be many.
        """
        for at in sorted(self._start_offsets(text, max(0, len(text) - self.longest + 1))):
            rest = text[at:]
            for pattern in self._starts[int.from_bytes(rest[:START], sys.byteorder)]:
                if len(pattern) > len(rest) and pattern.startswith(rest):
                    yield at, pattern
        for at in range(max(0, len(text) - START + 1), len(text)):
            if text[at:] in self._shorts:
                yield at, b""

    def _start_offsets(self, text: bytes, since: int) -> Iterator[int]:
        """Yield the offsets from `since` on of what patterns begin with."""
        for first in range(since, min(since + START, len(text) - START + 1)):
            samples = memoryview(text)[first : len(text) - (len(text) - first) % START].cast("I").tolist()
            if not self._starts.keys().isdisjoint(samples):
                yield from (first + START * at for at, sample in enumerate(samples) if sample in self._starts)

    def _possible(self, text: bytes) -> Iterable[bytes]:
        """List the patterns that may be in `text`: those with a sampled part, and the few."""
        possible = dict.fromkeys(self._few)
        for size, step, parts in self._sampled:
            whole = memoryview(text)[: len(text) // size * size]
            samples = whole.cast("Q") if size == _LONG else whole.cast("I")
            for part in parts.keys() & samples[::step].tolist():
                possible.update(dict.fromkeys(parts[part]))
        return possible


def _parts_of(patterns: Iterable[bytes], size: int, stride: int) -> dict[int, list[bytes]]:
    """Return by their value those parts of the patterns of which every occurrence has one at a multiple of `stride`."""
    parts: dict[int, list[bytes]] = {}
    for pattern in patterns:
        for at in range(stride):
            parts.setdefault(int.from_bytes(pattern[at : at + size], sys.byteorder), []).append(pattern)
    return parts


def _period(pattern: bytes) -> int:
    """Return the smallest distance between the beginnings of two occurrences of `pattern`."""
    at = pattern.find(pattern[:1], 1)
    while at >= 0:
        if pattern.startswith(pattern[at:]):
            return at
        at = pattern.find(pattern[:1], at + 1)
    return len(pattern)
