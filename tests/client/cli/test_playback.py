"""Playback of a log with its original timing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import anyio
import pytest

from airunner.client.cli.playback import Schedule, play
from airunner.protocol import events
from airunner.protocol.events import Event, EventBody
from tests.client.cli.test_output import OUT, event

BROKER_MS = 9_999_999  # the broker's clock is another one than the agents'


def output(ms: int) -> EventBody:
    return events.Output(timestamp_ms=ms, stream=OUT, data=b"x")


@pytest.mark.anyio
@pytest.mark.parametrize("speed", [1.0, 4.0, 0.5])
async def test_a_playback_takes_the_original_time_divided_by_its_speed_however_slow_reading_is(speed: float) -> None:
    shown: list[float] = []

    async def read_slowly() -> AsyncIterator[Event]:
        for number in range(101):
            await anyio.sleep(0.2)  # virtual
            yield event(output(5_000 + number * 1_000), number + 1)

    def show(batch: Sequence[Event]) -> None:
        shown.extend(anyio.current_time() for _ in batch)

    await play(read_slowly(), show, Schedule(speed))
    began = shown[0]
    assert [at - began for at in shown] == pytest.approx([number / speed for number in range(101)], abs=0.2)
    assert shown[-1] - began == pytest.approx(100 / speed, rel=0.001)


def test_pauses_are_those_of_the_agents_clock_and_are_cut_before_the_speed_applies() -> None:
    log: list[tuple[int, EventBody, float]] = [
        (0, events.JobScheduled(timestamp_ms=0, queue="q"), 0.0),
        (1, events.JobLeased(timestamp_ms=BROKER_MS, agent="a"), 0.0),
        (1, output(1_000), 0.0),
        (1, output(3_000), 1.0),
        (1, events.Heartbeat(timestamp_ms=33_000), 1.0),
        (1, output(63_000), 3.0),
        (1, output(60_000), 3.0),
        (1, output(64_000), 3.5),
        (1, events.JobExpired(timestamp_ms=BROKER_MS), 3.5),
        (2, events.JobLeased(timestamp_ms=2 * BROKER_MS, agent="b"), 3.5),
        (2, output(500), 3.5),
        (2, events.ProcessEnd(timestamp_ms=1_500, pid=1, exit_code=0), 4.0),
        (2, events.JobFinished(timestamp_ms=BROKER_MS, state=events.JobState.COMPLETED), 4.0),
    ]
    schedule = Schedule(speed=2, idle_max_ms=4_000)
    assert [schedule.due_s(event(body, attempt=attempt)) for attempt, body, _ in log] == [due for _, _, due in log]
