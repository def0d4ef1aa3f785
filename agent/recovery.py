"""What the last agent of this folder left: it is delivered, and its jobs are given back at once.

An agent that was killed leaves its spools, each with the token of its attempt. By the time that this runs,
nothing of those attempts does (see `place`). So what they had written is published, the attempts are
released, and a crash costs seconds where otherwise the visibility timeout would have to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from airunner.agent.spool import NotASpool, Spool
from airunner.certs.channel import Channel
from airunner.protocol.errors import PeerError
from airunner.protocol.messages import BATCHES_MAX, EventBatch, JobEventsPublished, PublishJobEvents, ReleaseJob

REQUEST_BYTES_MAX: Final = 1_048_576


async def recover(spools: Sequence[Path], channel: Channel, report: Callable[[str], None]) -> None:
    """Deliver and release what lies in these files.

    Raises `SpoolFailed`: the disk cannot be read; `OperatorError`: this key is not let in.
    """
    for path in spools:
        try:
            spool = Spool.recover(path)
        except NotASpool:
            path.unlink()  # its agent died before the attempt's first event
            continue
        try:
            await _settle(spool, channel)
            report(f"job {spool.header.job_id} attempt {spool.header.attempt} of the last agent is released")
        except PeerError as error:
            report(f"job {spool.header.job_id} attempt {spool.header.attempt} of the last agent: {error.message}")
        spool.remove()


async def _settle(spool: Spool, channel: Channel) -> None:
    """Raises `PeerError`: the attempt is over, or its events are not taken; then its lease expires."""
    header = spool.header
    while spool.pending:
        records = spool.read_from(spool.kept_index, REQUEST_BYTES_MAX)[:BATCHES_MAX]
        batches = tuple(
            EventBatch(
                job_id=header.job_id,
                attempt=header.attempt,
                task_token=header.task_token,
                first_index=record.first_index,
                count=record.count,
                events=record.events,
            )
            for record in records
        )
        reply = await channel.ask(PublishJobEvents(batches=batches))
        assert isinstance(reply, JobEventsPublished), "the answer to PublishJobEvents"
        for stored in reply.batches:
            if stored.code is not None:
                raise PeerError.from_wire(stored.code, stored.code)
            spool.acknowledge(stored.next_index)
    release = ReleaseJob(job_id=header.job_id, attempt=header.attempt, task_token=header.task_token, lost=True)
    await channel.ask(release)  # a job that takes its agents down is not to do so for ever
