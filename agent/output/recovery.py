"""Recovery: delivers the spools that the last agent of this home left, and releases its jobs at once.

An agent that was killed leaves its spools, each with the token of its attempt. When this runs, no process of those
attempts is left (see `home`). So their output is published and the attempts are released: a crash costs seconds,
where otherwise the visibility timeout would have to pass.
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

REFUSED_FIRST_MS: Final = 500
REFUSED_LAST_MS: Final = 30_000
FINAL: Final = (StaleToken, NotFound, BadRequest)  # the attempt is over, or its events are of no use


async def recover(spools: Sequence[Path], channel: Channel, edges: Edges, report: Callable[[str], None]) -> None:
    """Deliver each of these spools and release its attempt, however long the broker takes nothing.

    Raises, in a group, `SpoolFailed`: the disk cannot be read; `OperatorError`: this key is not let in.
    """
    turns = anyio.Lock()
    async with anyio.create_task_group() as group:
        for path in spools:
            try:
                spool = Spool.recover(path)
            except NotASpool:
                path.unlink()  # its agent died before the attempt's first event
            except ForeignSpool as foreign:
                report(str(foreign))
            else:
                group.start_soon(_recover, spool, channel, turns, edges, report)


async def _recover(
    spool: Spool, channel: Channel, turns: anyio.Lock, edges: Edges, report: Callable[[str], None]
) -> None:
    """Recover one spool; remove it only when the broker has taken it, or refuses it for good."""
    attempt = f"job {spool.header.lease.job_id} attempt {spool.header.lease.attempt} of the last agent"

    def refused(error: PeerError) -> None:
        report(f"{attempt} is not taken now, and offered again: {error.message}")

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
    """Publish a spool and release its attempt, by one request at a time of all spools: heartbeats must not wait long.

    Raises `PeerError`: the attempt is over, or its events are not taken; then its lease expires.
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
    await channel.ask(release)  # a job that takes its agents down is not to do so for ever
