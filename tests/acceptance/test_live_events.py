"""The process of live events is killed beside a running job: nobody misses an event, and the queue goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest

from airunner import Client
from airunner.protocol.events import Event, Output
from tests.acceptance.gate import Gate
from tests.acceptance.running import Cluster

pytestmark = pytest.mark.timeout(60)  # four processes are started, one after the other


def relay_of(broker: int) -> int:
    """The only process that a broker starts."""
    return int(Path(f"/proc/{broker}/task/{broker}/children").read_text())


def test_every_event_comes_once_and_in_order_though_live_events_are_cut_off(cluster: Cluster, gate: Gate) -> None:
    cluster.agent()
    process = cluster.broker.process
    events: list[Event] = []

    async def follow() -> None:
        async with Client(cluster.broker.requests, home=cluster.home) as client:
            job = await client.submit(command="sh", args=("-c", gate.script))
            async for event in client.follow(job.id):
                events.append(event)
                if isinstance(event.body, Output) and event.body.data == b"early\n":
                    gate.wait()
                    os.kill(relay_of(process.pid), signal.SIGKILL)
                    process.line("airunner broker: degraded: events: ")
                    gate.open(1)

    anyio.run(follow)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].kind == "JOB_FINISHED"
    said = b"".join(event.body.data for event in events if isinstance(event.body, Output))
    assert said == b"early\nbetween\nlate\n"
    process.line("airunner broker: no longer degraded: events")
    cluster.broker.kill()
    cluster.broker.start()  # on the same ports: what was left of the killed one has gone with it
