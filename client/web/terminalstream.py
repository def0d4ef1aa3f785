"""Stream of a terminal's output to a page: frames with the bytes that the job wrote, its terminal's size, and its end.

```
 follow ── events ──► frames ──HTTP──► xterm.js        frame: length u32 · kind u32 · sequence f64 · bytes
```

Each frame has the sequence of its last event, so a page that has lost its connection asks for the next one: no byte
comes twice. A page that reads slowly is waited for, back to the broker: nothing is left out, and memory is bounded.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator, Iterable, Iterator
from enum import IntEnum
from typing import Final

from airunner.client.client import Client
from airunner.client.web.logstream import STATE_BODIES
from airunner.protocol.events import Event, JobFinished, JobLeased, Output, TerminalResize
from airunner.protocol.job import Job

HEAD: Final = struct.Struct("!IId")
SIZE: Final = struct.Struct("!HH")  # columns, rows
OUTPUT_BYTES_MAX: Final = 65_536  # of a frame: adjacent output is sent together up to this


class FrameKind(IntEnum):
    """Kind of a frame; those of terminal.js."""

    OUTPUT = 1
    SIZE = 2
    ATTEMPT = 3  # another attempt begins, on an empty screen
    STATE = 4  # what the page shows of the job has changed
    END = 5


def frame(kind: FrameKind, sequence: int, content: bytes = b"") -> bytes:
    """Encode a frame."""
    return HEAD.pack(len(content), kind, sequence) + content


def frames(events: Iterable[Event]) -> Iterator[bytes]:
    """Convert events to frames; adjacent output becomes one frame."""
    output, last = bytearray(), 0
    for event in events:
        body = event.body
        if isinstance(body, Output) and len(output) + len(body.data) <= OUTPUT_BYTES_MAX:
            output += body.data
            last = event.sequence
            continue
        if output:
            yield frame(FrameKind.OUTPUT, last, bytes(output))
            output.clear()
        match body:
            case Output(data=data):
                output += data
                last = event.sequence
            case TerminalResize(cols=cols, rows=rows):
                yield frame(FrameKind.SIZE, event.sequence, SIZE.pack(cols, rows))
            case JobLeased() if event.attempt > 1:
                yield frame(FrameKind.ATTEMPT, event.sequence)
            case JobFinished():
                yield frame(FrameKind.END, event.sequence)
            case _ if isinstance(body, STATE_BODIES):
                yield frame(FrameKind.STATE, event.sequence)
            case _:
                pass
    if output:
        yield frame(FrameKind.OUTPUT, last, bytes(output))


async def terminal_stream(client: Client, job: Job, from_sequence: int) -> AsyncGenerator[bytes]:
    """Yield the frames of a job's terminal from a sequence on, until the job has ended."""
    async with client.follow(job, from_sequence) as events:
        while batch := await events.next_batch():
            yield b"".join(frames(batch))
