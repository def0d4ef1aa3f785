"""Exposition of metrics: a page that shows counters, gauges and histograms in the text formats of Prometheus.

What is measured is plain numbers; prometheus-client only writes them, in the format that the `Accept` header prefers,
with its `process_*` metrics of this process. Its global registry is not used.

Everybody who can reach the page may read it, as often as the connection allows. So at most `READINGS_MAX` readings
follow one another, and then one each `READING_S`: replies between them show the last values, which are written at most
once in each of `FORMATS_MAX` formats.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import anyio

from airunner.transport.http import HttpReply
from airunner.transport.metric import Histogram, Metric, MetricKind, Values

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

READINGS_MAX: Final = 10  # readings that may follow one another: of several scrapers, or an operator's who looks again
READING_S: Final = 1.0  # seconds for which further requests share a reading: scrapes come every 15 s or so
FORMATS_MAX: Final = 4  # formats of the same values; a further one is refused for the plain format


class MetricsPage:
    """Page of metrics; `read` measures their values."""

    def __init__(self, metrics: Sequence[Metric], read: Callable[[], Awaitable[Values]]) -> None:
        from prometheus_client import CollectorRegistry
        from prometheus_client.process_collector import PROCESS_COLLECTOR

        self._metrics = metrics
        self._read = read
        self._values: Values = {}
        self._written: dict[str, bytes] = {}  # by format
        self._readings_s = -math.inf  # instant of anyio's clock by which all readings so far have been due
        self._reading = anyio.Lock()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(PROCESS_COLLECTOR)
        self._registry.register(self)

    async def __call__(self, accept: str) -> HttpReply:
        """Make the reply with the values now, or with the last ones if they were read very often."""
        async with self._reading:
            now_s = anyio.current_time()
            due_s = max(self._readings_s, now_s - READINGS_MAX * READING_S) + READING_S
            if due_s <= now_s:
                self._readings_s = due_s
                self._values = await self._read()
                self._written.clear()
            return self._write(accept)

    def collect(self) -> Iterator[Family]:
        """Collect the values, for prometheus-client."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for metric in self._metrics:
            samples = self._values.get(metric.name, {})
            if metric.kind is MetricKind.HISTOGRAM:
                histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
                for labels, value in samples.items():
                    assert isinstance(value, Histogram), f"{metric.name} is a histogram"
                    histogram.add_metric(labels, value.buckets, value.sum)
                yield histogram
            else:
                family = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
                numbers = family(metric.name, metric.help, labels=metric.labels)
                for labels, value in samples.items():
                    assert not isinstance(value, Histogram), f"{metric.name} is no histogram"
                    numbers.add_metric(labels, value)
                yield numbers

    def _write(self, accept: str) -> HttpReply:
        from prometheus_client.exposition import choose_encoder

        try:
            encode, kind = choose_encoder(accept if accept.isascii() and accept.isprintable() else "")
        except (TypeError, ValueError):  # a version that is no number
            encode, kind = choose_encoder("")
        if kind not in self._written and len(self._written) >= FORMATS_MAX:
            encode, kind = choose_encoder("")
        if kind not in self._written:
            self._written[kind] = encode(self._registry)
        return HttpReply(self._written[kind], kind)
