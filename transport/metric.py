"""Metrics as plain numbers: what a process measures about itself, for the page of `exposition`. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from itertools import accumulate

from msgspec import Struct


class MetricKind(Enum):
    """Kind of a metric, as Prometheus has them."""

    COUNTER = auto()
    GAUGE = auto()
    HISTOGRAM = auto()


class Metric(Struct, frozen=True):
    """Metric of /metrics; the name of a counter is shown with `_total`. `help` says what it counts, in which unit."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()

    @property
    def shown_name(self) -> str:
        """Name in the exposition; a histogram's samples have `_bucket`, `_sum` or `_count` appended."""
        return f"{self.name}_total" if self.kind is MetricKind.COUNTER else self.name


class Histogram:
    """Histogram of observed values: how many were at most each of the rising `bounds`, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, values: Iterable[float]) -> None:
        """Count these values."""
        bounds, counts = self._bounds, self._counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            self.sum += value

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound of each bucket, and how many values are at most that."""
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True))


Samples = Mapping[tuple[str, ...], float | Histogram]
"""Samples of a metric, by the values of its labels."""

Values = Mapping[str, Samples]
"""Values of metrics, by name; a metric that is missing cannot be measured now."""
