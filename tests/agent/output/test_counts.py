"""Costs of output from its reading to the disk, in counts: functions called and writes, for 10 MB of a build log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airunner.agent.output import spool
from airunner.agent.output.batching import FLUSH_BYTES
from airunner.agent.output.outbox import Outbox
from airunner.protocol.events import OUTPUT_BYTES_MAX, Stream
from tests.agent.output.recording import EVERYTHING, Sink, recorder_in
from tests.counting import counted_calls

LINE = b"[1234/4000] Building CXX object CMakeFiles/core.dir/src/buffer.cc.o -O2 -Wall\n"
PIECE = (LINE * (OUTPUT_BYTES_MAX // len(LINE) + 1))[:OUTPUT_BYTES_MAX]
PIECES = 160


class Acknowledging(Sink):
    """A sender whose broker acknowledges each batch at once."""

    busy = True
    outbox: Outbox

    def wake(self) -> None:
        self.outbox.unsent(1, EVERYTHING)
        self.outbox.acknowledge(self.outbox.spool.next_index)


async def test_output_takes_few_calls_and_writes_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Acknowledging()
    recorder = recorder_in(tmp_path, sink=sink, zstd=True)
    sink.outbox = recorder.outbox
    writes: list[int] = []
    write = os.write
    monkeypatch.setattr(spool.os, "write", lambda *what: writes.append(1) or write(*what))
    with counted_calls() as calls:
        for _ in range(PIECES):
            await recorder.add_output(Stream.STDOUT, PIECE, 1)
    assert len(writes) == PIECES * OUTPUT_BYTES_MAX // FLUSH_BYTES
    assert calls.total() <= 110 * PIECES
