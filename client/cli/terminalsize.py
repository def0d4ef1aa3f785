"""Terminal size of a job: that of the terminal which has submitted it and follows it, also when that is resized.

A program in the job's terminal may set another size; that one stays until the terminal here is resized.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio

from airunner.client.cli.standardstreams import STDOUT
from airunner.client.taskgroups import first_error
from airunner.protocol.errors import PeerError
from airunner.protocol.events import Event, TerminalResize
from airunner.protocol.fields import TerminalSize
from airunner.protocol.fieldtypes import TERMINAL_SIDE_MAX

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from airunner.client.client import Client


def own_size() -> TerminalSize | None:
    """Return the size of the terminal that stdout is; None: it is none, or has no size."""
    try:
        cols, rows = os.get_terminal_size(STDOUT)
    except OSError:
        return None
    within = min(cols, rows) >= 1 and max(cols, rows) <= TERMINAL_SIDE_MAX
    return TerminalSize(cols=cols, rows=rows) if within else None


class SizeFollower:
    """Size follower: sends the size of this terminal to the job's, where they differ when it opens, and each change."""

    def __init__(self, client: Client, job_id: str, group: TaskGroup) -> None:
        self._client = client
        self._job_id = job_id
        self._group = group
        self._attempt = 0
        self._size: TerminalSize | None = None  # of the job's terminal, as far as it is known; None: it has none yet
        self._sending = anyio.Lock()  # a late copy of a request would undo a later size

    def note(self, batch: Sequence[Event]) -> None:
        """Take note of the next events: the first size that an attempt reports is that of its new terminal."""
        for event in batch:
            if isinstance(event.body, TerminalResize) and event.attempt != self._attempt:
                self._attempt = event.attempt
                self._size = TerminalSize(cols=event.body.cols, rows=event.body.rows)
                self._group.start_soon(self._send)

    async def run(self) -> None:
        """Send each change of this terminal's size, until cancelled."""
        with anyio.open_signal_receiver(signal.SIGWINCH) as resized:
            async for _ in resized:
                await self._send()

    async def _send(self) -> None:
        async with self._sending:
            size = own_size()
            if self._size is not None and size is not None and size != self._size:
                self._size = size
                with suppress(PeerError):  # an older broker
                    await self._client.resize(self._job_id, size)


@asynccontextmanager
async def size_followed(client: Client, job_id: str) -> AsyncGenerator[Callable[[Sequence[Event]], None]]:
    """Let a job's terminal follow the size of this one in this block, which calls what it gets with all events."""
    with first_error():
        async with anyio.create_task_group() as group:
            follower = SizeFollower(client, job_id, group)
            group.start_soon(follower.run)
            yield follower.note
            group.cancel_scope.cancel()
