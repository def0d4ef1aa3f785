"""Heartbeats of a silent command, on virtual time: every 30 s, and only where nothing else is in its log or waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from airunner.agent.attempt.heartbeat import HEARTBEAT_S, beat
from airunner.agent.launcher.contract import LaunchSpec
from airunner.agent.output.recorder import Recorder
from airunner.protocol.events import Heartbeat, Output, Stream
from tests.agent.output.recording import recorder_in, taken
from tests.agent.playing import PlayedProcess
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture


@asynccontextmanager
async def beating(folder: Path) -> AsyncIterator[Recorder]:
    recorder = recorder_in(folder)
    process = PlayedProcess(LaunchSpec(("true",), {}, folder), stubborn=False)
    async with anyio.create_task_group() as group:
        group.start_soon(beat, process, recorder, lambda: 7)
        yield recorder
        group.cancel_scope.cancel()


def beats(recorder: Recorder) -> list[int]:
    """When each came, in s."""
    bodies = taken(recorder)
    assert all(isinstance(body, Heartbeat) and (body.processes, body.memory_bytes) == (1, 4_096) for body in bodies)
    return [body.elapsed_ms // 1_000 for body in bodies if isinstance(body, Heartbeat)]


async def test_a_silent_command_is_heard_of_each_half_minute(tmp_path: Path) -> None:
    async with beating(tmp_path) as recorder:
        for turn in range(1, 4):
            await anyio.sleep(HEARTBEAT_S + 0.01)  # virtual
            assert beats(recorder) == [30 * turn]
            recorder.outbox.acknowledge(turn)


async def test_half_a_minute_is_counted_from_the_last_event(tmp_path: Path) -> None:
    async with beating(tmp_path) as recorder:
        await anyio.sleep(20)  # virtual
        await recorder.add_output(Stream.STDOUT, b"still here\n", 7)
        [output] = taken(recorder)
        assert isinstance(output, Output)
        recorder.outbox.acknowledge(1)
        await anyio.sleep(29)  # virtual
        assert not recorder.outbox.behind
        await anyio.sleep(2)  # virtual
        assert beats(recorder) == [50]


async def test_nothing_is_added_while_the_broker_takes_nothing(tmp_path: Path) -> None:
    async with beating(tmp_path) as recorder:
        await anyio.sleep(100 * HEARTBEAT_S)  # virtual
        assert beats(recorder) == [30], "what nobody has taken is not added to"
        recorder.outbox.acknowledge(1)
        await anyio.sleep(2 * HEARTBEAT_S)  # virtual
        assert len(beats(recorder)) == 1
