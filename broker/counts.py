"""Counters and histograms of the broker, for /metrics: names and numbers, never a key, a token or a job's content."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from airunner.transport.metric import Histogram, Metric, MetricKind, Samples

if TYPE_CHECKING:
    from airunner.broker.lifecycle.commands import Timings  # the relay's process has counters too, and decides nothing

COUNTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "peers_admitted": "Connections whose key is on the allow-list.",
        "peers_refused": "Connections whose key is not on the allow-list.",
        "peers_deferred": "Connections above the rate of a machine or of all, or while the allow-list cannot be read.",
        "requests": "Requests that were well formed and admitted.",
        "requests_refused": "Requests that were refused with an error code.",
        "garbage": "Messages that are not a request of this protocol.",
        "replies_undelivered": "Replies that were dropped because the peer was gone or did not read.",
        "commits": "Transactions on the store.",
        "commands": "Requests that the store has tried, a parked one each time, and commands of the broker itself.",
        "events": "Events appended to logs.",
        "live_dropped": "Live messages dropped because the relay did not run or read fast enough; monitors replay.",
        "relay_restarts": "Restarts of the relay, the process that sends live events.",
        "announced": "Messages published to live subscribers: segments of events, and changes of jobs.",
        "outages": "Times that the store was away, or a commit was left unsure.",
        "adoptions": "Dead brokers whose jobs this one has adopted.",
        "hints": "Hints sent to the other brokers of the fleet.",
        "hints_heard": "Hints received from other brokers.",
        "hints_missed": "Times that hints were found to be lost, and all parked requests were tried again.",
        "hints_dropped": "Hints dropped because the broker did not read, or no broker of the fleet sealed them.",
        "tickets_sent": "Bells and timers sent to the queue of bells.",
        "tickets_heard": "Bells and timers received from the queue of bells.",
        "tickets_lost": "Bells and timers that the queue of bells did not take; other brokers find out without them.",
        "tickets_left_out": "Timers left out because there were too many.",
        "tickets_dropped": "Messages in the queue of bells that are neither.",
        "events_published": "Lifecycle events that the event bus has accepted.",
        "events_refused": "Calls and events that the event bus has refused; they are repeated.",
        "events_left_out": "Lifecycle events that the event bus calls invalid.",
        "submissions": "Messages of schedules whose jobs are stored, copies included.",
        "submissions_refused": "Messages of schedules that cannot be submitted.",
    }
)
ENDS: Final = ("COMPLETED", "FAILED", "CANCELLED", "SKIPPED")  # terminal states; `JobState` itself is not for the relay
_START_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400)
_DURATION_S: Final = (0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400)
_COMMIT_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
START: Final = Metric(
    "airunner_start_latency_seconds",
    MetricKind.HISTOGRAM,
    "Time from when a job could be leased to its first lease, in seconds; neither checkout nor later attempts count.",
)
DURATION: Final = Metric(
    "airunner_job_duration_seconds",
    MetricKind.HISTOGRAM,
    "Time from a job's first lease to its end, in seconds, by its last state; not of jobs that were never leased.",
    ("state",),
)
COMMIT: Final = Metric(
    "airunner_commit_seconds",
    MetricKind.HISTOGRAM,
    "Time in which the store loaded, decided and committed a batch of commands, in seconds.",
)
METRICS: Final = (
    *(Metric(f"airunner_{name}", MetricKind.COUNTER, words) for name, words in COUNTED.items()),
    START,
    DURATION,
    COMMIT,
)


class Counts:
    """Counters and histograms that only rise; the broker's actors share one object."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(COUNTED, 0)
        self._start = Histogram(_START_S)
        self._durations = {state: Histogram(_DURATION_S) for state in ENDS}
        self._commit = Histogram(_COMMIT_S)

    def add(self, name: str, more: int = 1) -> None:
        """Add `more` to the counter `name`, a key of `COUNTED`."""
        self._counts[name] += more

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def record_batch(self, commands: int, took_s: float, timings: Timings) -> None:
        """Record a batch that was committed: one transaction."""
        self._counts["commits"] += 1
        self._counts["commands"] += commands
        self._commit.observe((took_s,))
        if timings.waited_ms:
            self._start.observe(_seconds(timings.waited_ms))
        if timings.ended:
            for ended, durations in self._durations.items():
                durations.observe(_seconds([took_ms for state, took_ms in timings.ended if state == ended]))

    def values(self) -> dict[str, Samples]:
        """Collect all values, by the names of `METRICS`."""
        values: dict[str, Samples] = {f"airunner_{name}": {(): count} for name, count in self._counts.items()}
        return {
            **values,
            START.name: {(): self._start},
            DURATION.name: {(state.lower(),): durations for state, durations in self._durations.items()},
            COMMIT.name: {(): self._commit},
        }


def _seconds(lengths_ms: list[int]) -> list[float]:
    """Convert lengths of time; one is negative if another broker's clock was ahead of this one's."""
    return [length_ms / 1_000 if length_ms > 0 else 0.0 for length_ms in lengths_ms]
