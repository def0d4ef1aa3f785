"""Counters of the broker, for /metrics: names and numbers, never a key, a token or a job's content."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

COUNTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "peers_admitted": "Connections whose key is on the allow-list.",
        "peers_refused": "Connections whose key is not.",
        "peers_deferred": "Connections of machines that open too many, or while the allow-list cannot be read.",
        "requests": "Requests that were well formed and admitted.",
        "requests_refused": "Requests that were answered with a refusal.",
        "garbage": "Messages that were not a request at all.",
        "replies_undelivered": "Replies whose peer was gone or did not read.",
        "commits": "Transactions on the store.",
        "commands": "Commands in those transactions.",
        "events": "Events appended to logs.",
        "live_dropped": "Live messages that the process of live events had no room for; monitors replay them.",
        "relay_restarts": "Restarts of the process of live events.",
        "announced": "Segments of events sent to live subscribers.",
    }
)


class Counts:
    """Counters that only rise; one object for the whole broker."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(COUNTED, 0)

    def add(self, name: str, more: int = 1) -> None:
        """Count `more` of `name`, which is one of `COUNTED`."""
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
