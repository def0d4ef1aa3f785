"""Figures of the benchmark: what each row is, its target, and what the rounds of a run say about it. Pure functions.

A target is `factor × reference + offset`. The reference is measured in the same round as the value, so that a slow
machine slows both. The round whose value is the median share of its target stands for the run: its value, reference
and target are the ones that are printed, so that they belong together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from statistics import median
from typing import NamedTuple

from msgspec import Struct


class Bound(StrEnum):
    """Direction of a target."""

    LEAST = ">="
    MOST = "<="
    NONE = ""  # the figure has no target: it is printed only


class Reading(NamedTuple):
    """Value of a figure in one round, and its reference in the same round; None: it has none."""

    value: float
    reference: float | None = None


Sample = Mapping[str, Reading]
"""Readings of one round, by name of figure."""


class Figure(Struct, frozen=True):
    """Row of the table: `bound` and `factor × reference + offset` are its target, `of` says what the reference is."""

    name: str
    unit: str
    bound: Bound = Bound.NONE
    factor: float = 0.0
    offset: float = 0.0
    of: str = ""

    def target(self, reading: Reading) -> float | None:
        """Compute the target of a round; None: there is none."""
        if self.bound is Bound.NONE:
            return None
        return self.factor * (reading.reference or 0.0) + self.offset

    def share(self, reading: Reading) -> float:
        """Compute the share of its target that a value is; of a figure without a target, the value itself."""
        target = self.target(reading)
        return reading.value / target if target else reading.value

    def met(self, reading: Reading) -> bool | None:
        """Decide whether a round met the target; None: there is no target."""
        target = self.target(reading)
        if target is None:
            return None
        return reading.value >= target if self.bound is Bound.LEAST else reading.value <= target


class Row(Struct, frozen=True):
    """Figure with its reading, as it is printed and written to the JSON file."""

    group: str
    name: str
    unit: str
    value: float
    bound: Bound
    target: float | None
    reference: float | None
    reference_is: str
    ratio: float | None  # value / reference
    met: bool | None
    values: list[float]  # of all rounds
    base: float | None = None  # median value of the revision beside which this was measured
    to_base: float | None = None  # median of the rounds' ratios to that revision


def middle(figure: Figure, readings: Sequence[Reading]) -> Reading:
    """Pick the round that stands for all: the median by its share of the target (the lower of two)."""
    ordered = sorted(readings, key=figure.share)
    return ordered[(len(ordered) - 1) // 2]


def rows(
    group: str, figures: Sequence[Figure], samples: Sequence[Sample], base: Sequence[Sample] = ()
) -> Iterator[Row]:
    """Make the rows of a group from the rounds of the working tree, and from those of another revision."""
    for figure in figures:
        readings = [sample[figure.name] for sample in samples if figure.name in sample]
        if not readings:
            continue
        reading = middle(figure, readings)
        pairs = [
            (new[figure.name].value, old[figure.name].value)
            for new, old in zip(samples, base, strict=False)
            if figure.name in new and figure.name in old
        ]
        yield Row(
            group=group,
            name=figure.name,
            unit=figure.unit,
            value=reading.value,
            bound=figure.bound,
            target=figure.target(reading),
            reference=reading.reference,
            reference_is=figure.of,
            ratio=reading.value / reading.reference if reading.reference else None,
            met=figure.met(reading),
            values=[reading.value for reading in readings],
            base=median(old for _, old in pairs) if pairs else None,
            to_base=median(new / old for new, old in pairs if old) if any(old for _, old in pairs) else None,
        )
