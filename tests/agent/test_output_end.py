"""The last output of a job: what is read after its processes have ended, on virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import anyio

from airunner.agent.attempt.supervisor import OPEN_PIPE_BYTES_MAX, OPEN_PIPE_S, OPEN_PIPE_S_MAX, Supervisor
from airunner.agent.launcher.contract import LaunchSpec
from airunner.agent.leases.heldlease import HeldLease
from airunner.protocol.events import Stream
from tests.agent.attempt.test_supervisor import GRACE_S, LEASE, Page
from tests.agent.playing import PlayedProcess
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture


class Pipe:
    """What a process outside the job holds open: pieces, each after a pause, and never an end."""

    def __init__(self, pieces: Iterator[bytes], pause_s: float = 0.0) -> None:
        self._pieces = pieces
        self._pause_s = pause_s

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await anyio.sleep(self._pause_s)  # virtual
        piece = next(self._pieces, None)
        if piece is None:
            await anyio.sleep_forever()
        assert piece is not None
        assert len(piece) <= max_bytes
        return piece

    def close(self) -> None:
        """Nothing is held."""


class FullPage(Page):
    """A recorder that has no room for a while, before each piece of output that it takes."""

    def __init__(self, full_s: float) -> None:
        super().__init__()
        self._full_s = full_s

    async def add_output(self, stream: Stream, data: bytes, timestamp_ms: int) -> None:
        await anyio.sleep(self._full_s)  # virtual
        await super().add_output(stream, data, timestamp_ms)


async def logged(pipe: Pipe, full_s: float = 0.0) -> FullPage:
    """The log of a job that ends at once, and what it wrote stands in `pipe`."""
    page = FullPage(full_s)
    process = PlayedProcess(LaunchSpec(("true",), {}, "/"), stubborn=False)
    process.stdout = pipe  # type: ignore[assignment] # another played source
    process.exit(0)
    await Supervisor(HeldLease(LEASE, anyio.current_time(), 1_000), page, lambda: 1, GRACE_S).supervise(process, None)
    return page


async def test_output_that_waits_for_room_is_not_given_up_as_silent() -> None:
    page = await logged(Pipe(iter([b"1", b"2", b"3"])), full_s=2 * OPEN_PIPE_S_MAX)
    assert page.output == b"123"
    assert page.words[0].startswith("stopped reading output")


async def test_a_process_outside_the_job_that_writes_for_ever_does_not_keep_it_running() -> None:
    page = await logged(Pipe(repeat(b"x" * 32_768)), full_s=OPEN_PIPE_S_MAX)
    assert OPEN_PIPE_BYTES_MAX <= len(page.output) <= 2 * OPEN_PIPE_BYTES_MAX
    begun_s = anyio.current_time()
    page = await logged(Pipe(repeat(b"."), pause_s=OPEN_PIPE_S / 2))
    assert anyio.current_time() - begun_s <= OPEN_PIPE_S_MAX + OPEN_PIPE_S
    assert page.words
