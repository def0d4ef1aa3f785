"""Rows that a live table sends: those that differ from what its reader has, and no others."""

from __future__ import annotations

from typing import Any

import msgspec

from airunner.client.web.pages.listpages import AgentRows
from airunner.client.web.pages.livetable import RowDiff
from airunner.protocol.replies import AgentSummary


def sent(diff: RowDiff, shown: dict[str, Any]) -> Any:
    """What is sent of rows, each of which is shown as its value in angle brackets."""
    event = diff.event(shown, lambda row: f"<{shown[row]}>")
    return None if event is None else msgspec.json.decode(event.data)


def test_only_what_differs_is_sent_and_nothing_if_nothing_does() -> None:
    diff = RowDiff()
    assert sent(diff, {}) == {"order": [], "rows": {}}  # so a page knows that it is live
    assert sent(diff, {"a": 1, "b": None}) == {"order": ["a", "b"], "rows": {"a": "<1>", "b": "<None>"}}
    assert sent(diff, {"a": 1, "b": None}) is None
    assert sent(diff, {"a": 2, "b": None}) == {"order": ["a", "b"], "rows": {"a": "<2>"}}
    assert sent(diff, {"b": None, "a": 2}) == {"order": ["b", "a"], "rows": {}}
    assert sent(diff, {"b": None}) == {"order": ["b"], "rows": {}}
    assert sent(diff, {"b": None, "a": 2}) == {"order": ["b", "a"], "rows": {"a": "<2>"}}


def test_an_agent_that_was_not_seen_again_has_an_unchanged_row() -> None:
    rows = AgentRows()

    def listed(silent_ms: int | None, now_ms: int, leases: int = 0) -> Any:
        seen_ms = 0 if silent_ms is None else 77
        agent = AgentSummary(name="x", slots=1, leases=leases, seen_ms=seen_ms, silent_ms=silent_ms)
        return rows.shown([agent], now_ms)["agent-x"]

    first = listed(5_000, 1_000_000)
    assert first.seen_ms == 995_000
    assert listed(15_003, 1_010_000) == first  # the broker's answer took 3 ms longer
    assert listed(15_003, 1_010_000, leases=1) != first
    assert listed(1_000, 1_020_000).seen_ms == 1_019_000
    assert listed(None, 1_030_000).seen_ms is None
