"""Over a slow link, and one that is lost again and again, everything arrives: real sockets, broker and proxy.

The heartbeat is shorter here than in production, and the link as much faster, so that each takes seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import pytest

from airunner.agent.output.recovery import recover
from airunner.agent.output.spool import Spool, SpoolHeader
from airunner.client.client import Client
from airunner.client.reach import reach
from airunner.protocol import reconnect as retry
from airunner.protocol.events import Output, Stream, encode_bodies
from airunner.transport.channel import Channel
from airunner.transport.ports import SYSTEM
from tests.acceptance.running import RunningBroker, make_home, running_broker
from tests.acceptance.slowlink import SlowLink
from tests.client.working import Worker

PIECE = b"x" * 65_000
PIECES = 16  # 1 MiB: what one request and one page are at the most
HEARTBEAT_MS = 200  # so a connection is given up after 0.8 s of silence, where a page takes 3
BYTES_A_S = 400_000
CUT_BYTES = 400_000
WITHIN_S = 18.0
seeds = itertools.count(1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    home = tmp_path_factory.mktemp("slow") / "home"
    make_home(home)
    with running_broker(home, "memory:", "--tenant-requests", "1000000") as running:
        yield running


@pytest.fixture
def soon_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "HEARTBEAT_MS", HEARTBEAT_MS)


@asynccontextmanager
async def leased(broker: RunningBroker) -> AsyncIterator[tuple[Client, Worker]]:
    """A client that is near the broker, and a job that it has leased."""
    async with Client(broker.requests, home=broker.home) as near:
        await near.submit(command="true")
        yield near, await Worker.lease(near, next(seeds).to_bytes(32, "big"))


@asynccontextmanager
async def channel_over(endpoint: str, broker: RunningBroker) -> AsyncIterator[Channel]:
    reached = reach(endpoint, home=broker.home)
    channel = Channel(reached.network, reached.endpoints, reached.token, SYSTEM)
    try:
        async with anyio.create_task_group() as group:
            await group.start(channel.run)
            yield channel
            group.cancel_scope.cancel()
    finally:
        reached.close()


async def pieces_of(client: Client, job_id: str) -> int:
    return len([event async for event in client.replay(job_id) if isinstance(event.body, Output)])


@pytest.mark.usefixtures("soon_silent")
async def test_a_page_that_is_long_on_its_way_is_no_silence(broker: RunningBroker) -> None:
    found: list[int] = []
    async with leased(broker) as (_, worker):
        for _ in range(PIECES):
            await worker.print(PIECE)
        job_id = worker._lease.job_id
        with closing(SlowLink(broker.requests, BYTES_A_S)) as link, anyio.fail_after(WITHIN_S):
            async with Client(link.endpoint, home=broker.home) as far, anyio.create_task_group() as group:

                async def monitor() -> None:
                    found.append(await pieces_of(far, job_id))

                for _ in range(2):
                    group.start_soon(monitor)
        await worker.complete()
    assert found == [PIECES] * 2


@pytest.mark.usefixtures("soon_silent")
async def test_events_are_delivered_over_a_link_that_is_lost_before_it_has_carried_a_megabyte(
    broker: RunningBroker, tmp_path: Path
) -> None:
    async with leased(broker) as (near, worker):
        lease = worker._lease
        spool = Spool.create(tmp_path / "spool", SpoolHeader(lease=lease.ref))
        for index in range(PIECES):
            spool.append(index, 1, encode_bodies([Output(timestamp_ms=1, stream=Stream.STDOUT, data=PIECE)]))
        spool.close()
        with closing(SlowLink(broker.requests, 10 * BYTES_A_S, CUT_BYTES)) as link, anyio.fail_after(WITHIN_S):
            async with channel_over(link.endpoint, broker) as channel:
                await recover([spool.path], channel, SYSTEM, lambda _: None)
        assert not spool.path.exists()
        assert await pieces_of(near, lease.job_id) == PIECES
        await near.cancel(lease.job_id)
