"""Stream of a log to a page, from a broker whose pages end by their deadline."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from sse_starlette import ServerSentEvent

from airunner.client.web.logindex import LogIndex
from airunner.client.web.logstream import LogStream
from airunner.protocol.events import Stream
from airunner.protocol.logsearch import START, LogLine, SearchPlace
from airunner.protocol.replies import LogSearched

LINES = 10_000


def line(number: int) -> LogLine:
    return LogLine(line=number, sequence=1, attempt=1, stream=Stream.STDOUT, timestamp_ms=0, data=b"x", size_bytes=1)


class LateBroker:
    """Client of a log of so many lines, of which each page searches another number."""

    def __init__(self, *searched: int) -> None:
        self._searched = iter(searched)

    async def search_page(self, _job: Any, *, from_line: int, limit: int, place: SearchPlace | None) -> LogSearched:
        first = (place or START).lines + 1
        last = min(first + next(self._searched) - 1, LINES)
        found = range(max(from_line, first), last + 1)[:limit]
        last = found[-1] if len(found) == limit else last
        hits = tuple(map(line, found))
        if last == LINES:
            return LogSearched(hits=hits, lines=last, finished=True)
        return LogSearched(hits=hits, lines=last, place=SearchPlace(sequence=last + 1, lines=last))


@pytest.mark.anyio
async def test_a_page_hears_of_all_lines_however_early_a_search_ends() -> None:
    job: Any = SimpleNamespace(state=SimpleNamespace(terminal=True), last_sequence=LINES)
    client: Any = LateBroker(200, 5_000, 5_000, 50, 50, LINES)  # those before the lines, those that count, and again
    outlet, inlet = anyio.create_memory_object_stream[ServerSentEvent](math.inf)
    with inlet:
        await LogStream(client, LogIndex(), job, 200, LINES).run(outlet)
        last = inlet.receive_nowait()
        while inlet.statistics().current_buffer_used:
            last = inlet.receive_nowait()
    assert (last.event, json.loads(last.data)) == ("end", {"total": LINES})
