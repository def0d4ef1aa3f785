"""Heartbeat events of a silent command or hook: they show that the process still runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from airunner.agent.launcher.contract import Process, Vitals
from airunner.agent.output.recorder import Recorder
from airunner.protocol.events import Heartbeat

HEARTBEAT_S: Final = 30.0  # seconds without an event before a heartbeat; a day of heartbeats takes some 200 KB


async def beat(process: Process, recorder: Recorder, wall_ms: Callable[[], int]) -> None:
    """Record a HEARTBEAT event after each `HEARTBEAT_S` without an event, until cancelled.

    While events wait for the broker's acknowledgement, no heartbeat is recorded: it would only fill the spool.
    """
    began_s = anyio.current_time()
    due_s = began_s + HEARTBEAT_S
    while True:
        await anyio.sleep_until(due_s)
        now_s = anyio.current_time()
        due_s = recorder.touched_s + HEARTBEAT_S
        if due_s > now_s:
            continue
        due_s = now_s + HEARTBEAT_S
        if recorder.outbox.behind:
            continue
        vitals = await process.vitals() or Vitals()
        recorder.add(
            Heartbeat(
                timestamp_ms=wall_ms(),
                elapsed_ms=int((now_s - began_s) * 1_000),
                processes=vitals.processes,
                memory_bytes=vitals.memory_bytes,
            )
        )
