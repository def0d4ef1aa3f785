"""What is counted, and how a scraper reads it."""

from __future__ import annotations

import pytest

from airunner.broker.counts import COUNTED, Counts


def test_counters_rise_and_are_shown_with_their_meaning() -> None:
    counts = Counts()
    counts.add("events")
    counts.add("events", 4)
    assert counts["events"] == 5
    lines = counts.exposition().splitlines()
    assert len(lines) == 3 * len(COUNTED)
    at = lines.index("airunner_events_total 5")
    assert lines[at - 1] == "# TYPE airunner_events_total counter"
    assert lines[at - 2].startswith("# HELP airunner_events_total ")


def test_what_is_not_foreseen_is_not_counted() -> None:
    with pytest.raises(KeyError):
        Counts().add("nonsense")
