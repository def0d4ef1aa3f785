"""A recorder and an outbox with a real spool, and a sender that sends nothing: the test does."""

from __future__ import annotations

import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from airunner.agent.flag import Flag
from airunner.agent.output.batching import PIPE_WINDOW_MS, Batcher
from airunner.agent.output.logsigning import Signer
from airunner.agent.output.outbox import Outbox
from airunner.agent.output.outputlimit import OutputLimit
from airunner.agent.output.recorder import Recorder
from airunner.agent.output.spool import Spool, SpoolHeader
from airunner.agent.output.spoolroom import SpoolRoom
from airunner.protocol.events import EventBody, decode_bodies
from airunner.protocol.fields import JobSpec
from airunner.protocol.names import JobId, TaskToken
from airunner.protocol.replies import JobLease
from airunner.protocol.requests import BATCHES_MAX

EVERYTHING = 1 << 40
TASK_TOKEN = TaskToken(b"t" * 32)


class Sink:
    """Is a `Sender` that sends nothing; and knows no delay."""

    busy = False

    def __init__(self, spool_bytes_max: int = EVERYTHING) -> None:
        self.room = SpoolRoom(spool_bytes_max)

    def wake(self) -> None:
        """There is nobody."""

    def wake_later(self, pause_s: float) -> None:
        assert pause_s > 0

    def flush_at(self, due_ms: int) -> None:
        assert due_ms > 0


def lease_of(number: int = 1, *, zstd: bool = False, signed: bool = False) -> JobLease:
    job_id, spec = JobId(f"job{number}"), JobSpec(command="true")
    return JobLease(
        job_id=job_id, attempt=1, task_token=TASK_TOKEN, visibility_ms=60_000, spec=spec, zstd=zstd, signed=signed
    )


def recorder_in(
    folder: Path,
    number: int = 1,
    *,
    sink: Sink | None = None,
    cancelled: Flag | None = None,
    zstd: bool = False,
    signer: Signer | None = None,
    signed: bool = True,
) -> Recorder:
    """The recorder of the `number`th job, whose broker takes compressed batches with `zstd`; `signer` signs its log."""
    lease = lease_of(number, zstd=zstd, signed=signed)
    header = SpoolHeader(lease=lease.ref)
    spool = Spool.create(folder / lease.job_id, header)
    batcher = Batcher(PIPE_WINDOW_MS)
    outbox = Outbox(lease, spool, batcher, sink or Sink(), cancelled, signer)
    return Recorder(batcher, outbox, OutputLimit(EVERYTHING))


def taken(recorder: Recorder) -> list[EventBody]:
    """All that it has to send; it counts as sent, and not as acknowledged."""
    recorder.outbox.flush()
    return [
        body
        for batch in recorder.outbox.unsent(BATCHES_MAX * 1_000, EVERYTHING)
        for body in decode_bodies(batch.events)
    ]


@contextmanager
def no_more_than(size: int) -> Generator[None]:
    """No file may grow beyond that: writing to it fails as it does on a full disk, in the middle of a record."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores SIGXFSZ: write says EFBIG
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
