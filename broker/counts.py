"""Counters of the broker, for /metrics: names and numbers, never a key, a token or a job's content."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

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
        "announced": "Segments of events published to live subscribers.",
    }
)


class Counts:
    """Counters that only rise; the broker's actors share one object."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(COUNTED, 0)

    def add(self, name: str, more: int = 1) -> None:
        """Add `more` to the counter `name`, a key of `COUNTED`."""
        self._counts[name] += more

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def exposition(self) -> str:
        """Format all counters as Prometheus text, version 0.0.4."""
        lines: list[str] = []
        for name, count in self._counts.items():
            full = f"airunner_{name}_total"
            lines += [f"# HELP {full} {COUNTED[name]}", f"# TYPE {full} counter", f"{full} {count}"]
        return "\n".join(lines) + "\n"
