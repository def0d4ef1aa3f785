"""How an attempt's journal ends: the broker is told behind all that was written, and again until it has heard."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock

from airunner.agent.journal import Journal
from airunner.protocol.events import ProcessError
from airunner.protocol.job import JobState, Result
from tests.agent.journaling import EVERYTHING, journal_in, taken

pytestmark = pytest.mark.anyio

RESULT = Result(exit_code=0)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def with_events(folder: Path, events: int) -> Journal:
    journal = journal_in(folder)
    for number in range(events):
        journal.add(ProcessError(timestamp_ms=1, message=str(number)))
        journal.cut()
    return journal


async def test_the_end_is_told_once_every_event_is_sent(tmp_path: Path) -> None:
    journal = with_events(tmp_path, 2)
    assert journal.completion() is None, "it has not ended"
    journal.finish(RESULT)
    assert journal.completion() is None, "its events are not sent"
    assert len(journal.unsent(1, EVERYTHING)) == 1
    assert journal.completion() is None, "one of them is not sent"
    assert len(taken(journal)) == 1
    completion = journal.completion()
    assert completion is not None
    assert (completion.event_count, completion.result) == (2, RESULT)
    assert journal.completion() == completion, "until the broker has answered"
    journal.complete(JobState.COMPLETED)
    assert journal.completion() is None
    assert await journal.settled() is JobState.COMPLETED


async def test_an_attempt_without_events_ends_too(tmp_path: Path) -> None:
    journal = with_events(tmp_path, 0)
    journal.finish(RESULT)
    completion = journal.completion()
    assert completion is not None
    assert completion.event_count == 0


async def test_what_the_broker_misses_is_sent_again_before_the_end(tmp_path: Path) -> None:
    journal = with_events(tmp_path, 3)
    journal.finish(RESULT)
    assert len(taken(journal)) == 3
    journal.resend_from(1)
    assert journal.completion() is None
    assert [body.message for body in taken(journal) if isinstance(body, ProcessError)] == ["1", "2"]
    assert journal.completion() is not None


async def test_a_broker_that_has_lost_what_it_had_is_not_asked_for_ever(tmp_path: Path) -> None:
    journal = with_events(tmp_path, 3)
    journal.finish(RESULT)
    taken(journal)
    journal.acknowledge(3)
    journal.resend_from(1)
    assert journal.lost.is_set()
    assert journal.completion() is None
    assert await journal.settled() is None
