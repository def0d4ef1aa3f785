"""Recovery: delivers the spools that the last agent of this home left, and then releases its jobs.

An agent leaves spools when it is killed, or stops before the broker has all events. Each has the task token of its
attempt. When the recovery runs, no process of those attempts is left (see `agent/home.py`). It publishes their events
and releases the attempts, so that the jobs run again after seconds instead of after the visibility timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import anyio

from airunner.agent.output.spool import ForeignSpool, NotASpool, Spool
from airunner.protocol.errors import BadRequest, NotFound, PeerError, StaleToken
from airunner.protocol.requests import BATCHES_MAX, PublishJobEvents, ReleaseJob
from airunner.transport.backoff import Backoff, retry
from airunner.transport.channel import Channel
from airunner.transport.ports import Edges

REFUSED_FIRST_MS: Final = 500  # longest first pause before a refused request is sent again; the bound then doubles
REFUSED_LAST_MS: Final = 30_000  # longest pause of all
FINAL: Final = (StaleToken, NotFound, BadRequest)  # no retry helps: the attempt is over, or its events are invalid


async def recover(spools: Sequence[Path], channel: Channel, edges: Edges, report: Callable[[str], None]) -> None:
    """Deliver each of these spools and release its attempt, until the broker accepts or finally rejects each.

    Raises, in an exception group, `SpoolFailed`: the disk cannot be read; `OperatorError`: the broker rejects our key.
    """
    turns = anyio.Lock()
    async with anyio.create_task_group() as group:
        for path in spools:
            try:
                spool = Spool.recover(path)
            except NotASpool:
                path.unlink()  # it has no event to deliver
            except ForeignSpool as foreign:
                report(str(foreign))
            else:
                group.start_soon(_recover, spool, channel, turns, edges, report)


async def _recover(
    spool: Spool, channel: Channel, turns: anyio.Lock, edges: Edges, report: Callable[[str], None]
) -> None:
    """Deliver one spool and release its attempt; remove it when the broker has accepted or finally rejected it."""
    attempt = f"job {spool.header.lease.job_id} attempt {spool.header.lease.attempt} of the last agent"

    def refused(error: PeerError) -> None:
        report(f"{attempt}: the broker refuses its events for now, and they will be sent again: {error.message}")

    backoff = Backoff(edges.random, REFUSED_FIRST_MS, REFUSED_LAST_MS)
    try:
        try:
            await retry(lambda: _settle(spool, channel, turns), backoff, refused, final=FINAL)
        except FINAL as error:
            report(f"{attempt}: {error.message}")
        else:
            report(f"{attempt} is released")
        spool.remove()
    finally:
        spool.close()


async def _settle(spool: Spool, channel: Channel, turns: anyio.Lock) -> None:
    """Publish a spool's events and release its attempt. `turns`: spools publish in turn, to let heartbeats through.

    Raises `PeerError`: the broker refuses the events or the release, for example because the attempt is over.
    """

    def batches() -> PublishJobEvents:
        records = spool.read_from(spool.kept_index, channel.request_size.bytes_max)[:BATCHES_MAX]
        return PublishJobEvents(batches=tuple(map(spool.header.batch, records)))

    while spool.pending:
        async with turns:
            reply = await channel.ask(batches(), smaller=batches)
        for stored in reply.batches:
            if stored.code is not None:
                raise PeerError.from_wire(stored.code, stored.code)
            spool.acknowledge(stored.next_index)
    release = ReleaseJob(lease=spool.header.lease, lost=True)
    await channel.ask(release)  # `lost`: it counts as an attempt, so a job that kills its agents is not run for ever
