"""Faults of a log: which events were changed, removed, repeated or added, by comparing the tags of events. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Final, NamedTuple

ALIGNED_MAX: Final = 4_096  # tags that are aligned one by one; of more that differ in number the range is named


class Kind(StrEnum):
    """Kind of a fault."""

    CHANGED = "changed"
    MISSING = "missing"
    DOUBLED = "doubled"
    ADDED = "added"
    UNREADABLE = "unreadable"
    GONE = "missing or unreadable"  # the broker does not say which
    UNSIGNED = "no longer signed"


class Fault(NamedTuple):
    """Fault of the events from sequence `first` to `last`; `why` says more."""

    kind: Kind
    attempt: int
    first: int
    last: int
    why: str = ""

    @property
    def text(self) -> str:
        """The fault in words."""
        why = f": {self.why}" if self.why else ""
        if self.first == self.last:
            return f"event {self.first:,} of attempt {self.attempt} is {self.kind}{why}"
        return f"events {self.first:,} to {self.last:,} of attempt {self.attempt} are {self.kind}{why}"


class Entry(NamedTuple):
    """Event of a log: its sequence, attempt and tag; the tag is empty if the event is missing or cannot be read."""

    sequence: int
    attempt: int
    tag: bytes

    def fault(self, kind: Kind, why: str = "") -> Fault:
        """Return a fault of this event."""
        return Fault(kind, self.attempt, self.sequence, self.sequence, why)


def differences(expected: Sequence[bytes], found: Sequence[Entry], after: int) -> Iterator[Fault]:
    """Compare events with the tags that they should have; `after` is the sequence before the first event."""
    tags = [entry.tag for entry in found]
    least = min(len(expected), len(tags))
    begin = next((at for at in range(least) if expected[at] != tags[at]), least)
    rest = least - begin
    same = next((at for at in range(rest) if expected[-1 - at] != tags[-1 - at]), rest)
    wanted, had = expected[begin : len(expected) - same], tags[begin : len(tags) - same]
    place = _Place(found, begin, after)
    if len(wanted) == len(had):
        yield from _merged([place.fault(Kind.CHANGED, at, at) for at in range(len(had)) if wanted[at] != had[at]])
    elif max(len(wanted), len(had)) > ALIGNED_MAX:
        yield from place.replaced(0, len(had), len(wanted))
    else:
        for code, at, end, first, last in SequenceMatcher(None, wanted, had, autojunk=False).get_opcodes():
            if code != "equal":
                yield from place.replaced(first, last, end - at)


def expected_end(expected: Sequence[bytes], found: Sequence[Entry], shift_max: int) -> int:
    """Return how many of the events found stand for the expected ones: other events may follow them.

    Their number differs by `shift_max` at most; it is the one for which the most events at the end are the same.
    """
    whole = len(expected)

    def same(end: int) -> tuple[int, int]:
        least = min(end, whole)
        rest = (at for at in range(least) if expected[whole - 1 - at] != found[end - 1 - at].tag)
        return next(rest, least), -abs(end - whole)

    return max(range(max(0, whole - shift_max), min(len(found), whole + shift_max) + 1), key=same, default=len(found))


class _Place:
    """Place of the events that differ, from number `begin` of `found` on."""

    def __init__(self, found: Sequence[Entry], begin: int, after: int) -> None:
        self._found = found
        self._begin = begin
        self._after = after

    def fault(self, kind: Kind, first: int, last: int) -> Fault:
        """Return a fault of the events from number `first` to `last` of those that differ."""
        begin, end = self._found[self._begin + first], self._found[self._begin + last]
        return Fault(kind, begin.attempt, begin.sequence, end.sequence)

    def replaced(self, first: int, last: int, wanted: int) -> Iterator[Fault]:
        """Name events `first` to `last` (exclusive) that stand where `wanted` others should."""
        common = min(last - first, wanted)
        if common:
            yield self.fault(Kind.CHANGED, first, first + common - 1)
        if last - first > common:
            at = self._begin + first + common
            doubled = all(self._repeated(number) for number in range(at, self._begin + last))
            yield self.fault(Kind.DOUBLED if doubled else Kind.ADDED, first + common, last - 1)
        elif wanted > common:
            at = self._begin + last
            before = self._found[at - 1].sequence if at else self._after
            near = self._found[max(0, at - 1)] if self._found else None
            yield Fault(Kind.MISSING, near.attempt if near else 1, before + 1, before + wanted - common)

    def _repeated(self, at: int) -> bool:
        """Return whether the same event stands next to this one, or as far away as there are events too many."""
        tag = self._found[at].tag
        others = (*self._found[max(0, at - ALIGNED_MAX) : at], *self._found[at + 1 : at + 2])
        return any(other.tag == tag for other in others)


def _merged(faults: Sequence[Fault]) -> Iterator[Fault]:
    """Merge faults of one kind whose events follow one another."""
    held: Fault | None = None
    for fault in faults:
        if held is not None and fault.first == held.last + 1 and fault[:2] == held[:2]:
            held = held._replace(last=fault.last)
        else:
            if held is not None:
                yield held
            held = fault
    if held is not None:
        yield held
