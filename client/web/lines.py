"""Lines of a log for a page: windows of lines by number, groups, and the lines that a search finds.

```
 page ── lines?from=N ──► window ──► LogIndex: the last place before N ──► SearchLog, page by page ──► lines with styles
```

A line is numbered as in every search. Only finished lines have their number for good, so windows have no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, Final

from anyio import to_thread

from airunner.client.client import Client
from airunner.client.web.linestyle import (
    GROUP_PATTERN,
    OPENED,
    LineStyles,
    group_name,
    group_of,
    reported,
    text_of,
    without_sequences,
)
from airunner.client.web.logindex import GROUPS_MAX, LogIndex, whole_lines
from airunner.protocol.events import Stream
from airunner.protocol.job import Job, JobState
from airunner.protocol.logsearch import LIMIT_MAX, LogLine
from airunner.protocol.names import JobId

LINES_MAX: Final = 1_000  # of one window
HERE_BYTES_MAX: Final = 65_536  # of lines that are converted in the event loop, in some ms
SEQUENCE_BYTES: Final = 32  # bytes that take as long as an escape sequence
SEQUENCES_MAX: Final = 10_000  # escape sequences of the lines of one answer: each takes some 10 µs, or more if it edits
PLAIN_LINES: Final = 200  # of a log on a page without JavaScript
FIND_PAGES_MAX: Final = 8  # pages of 8 MiB in which a request of a page searches: it shows how far the search is
LAST: Final = 0  # stands for the first of a log's last lines
BEYOND: Final = 2**53 - 1  # a line that no log has: the broker only counts


async def window(client: Client, index: LogIndex, job_id: JobId, first: int, limit: int) -> list[LogLine]:
    """Read up to `limit` finished lines from number `first` on."""
    lines: list[LogLine] = []
    place = index.before(first)
    while len(lines) < limit:
        page = await client.search_page(job_id, from_line=first, limit=limit - len(lines), place=place)
        index.note(page)
        whole = whole_lines(page)
        lines += [line for line in page.hits if line.line <= whole]
        place = page.place
        if place is None:
            break
    return lines[:limit]


async def groups(client: Client, index: LogIndex, job_id: JobId) -> list[tuple[int, str]]:
    """Find the lines that begin or end a group, up to `GROUPS_MAX`, and how: see `group_of`."""
    while True:
        begun_at = index.grouped
        page = await client.search_page(job_id, GROUP_PATTERN, regex=True, place=begun_at)
        index.note(page)
        index.note_groups(begun_at, page)
        if page.place is None or len(index.groups) >= GROUPS_MAX:
            return index.groups


async def find(
    client: Client, index: LogIndex, job_id: JobId, pattern: str, first: int, *, regex: bool, ignore_case: bool
) -> dict[str, Any]:
    """Search a part of a log from a line on: `hits` are lines, `next` is where to go on, and null at the log's end."""
    hits: list[int] = []
    whole = 0
    place = index.before(first)
    for _ in range(FIND_PAGES_MAX):
        page = await client.search_page(
            job_id, pattern, regex=regex, ignore_case=ignore_case, from_line=first, limit=LIMIT_MAX, place=place
        )
        index.note(page)
        whole = whole_lines(page)
        hits += [line.line for line in page.hits if line.line <= whole]
        place = page.place
        if place is None or len(hits) >= LIMIT_MAX:
            break
    return {"hits": hits, "next": None if place is None else place.lines + 1, "lines": whole}


async def shown(lines: Iterable[LogLine], styles: LineStyles | None = None) -> list[dict[str, Any]]:
    """Convert lines to their form for a page; many in a thread, so that no other request waits for them."""
    lines = list(lines)
    if sum(len(line.data) + SEQUENCE_BYTES * line.data.count(b"\x1b") for line in lines) <= HERE_BYTES_MAX:
        return rows_of(lines, styles)
    return await to_thread.run_sync(rows_of, lines, styles)


def rows_of(lines: Sequence[LogLine], styles: LineStyles | None = None) -> list[dict[str, Any]]:
    """Convert lines to their form for a page, as short as its many lines make worthwhile.

    Lines with more escape sequences than all of them may have are shown without theirs: see `SEQUENCES_MAX`.

    `n` is the number, `t` the time in ms, `a` the attempt, `s` the spans; `e` marks stderr, `g` is the line's part in a
    group, and `cut` counts what is left out at its end.
    """
    styles = styles or LineStyles()
    rows: list[dict[str, Any]] = []
    room = SEQUENCES_MAX
    for line in lines:
        sequences = line.data.count(b"\x1b")
        data = line.data if sequences <= room else without_sequences(line.data)
        room -= sequences if sequences <= room else 0
        spans, cut = styles.spans(line.stream, line.attempt, data)
        row: dict[str, Any] = {"n": line.line, "t": line.timestamp_ms, "a": line.attempt, "s": reported(spans)}
        if line.stream is Stream.STDERR:
            row["e"] = 1
        if (group := group_of(text_of(spans))) and group != OPENED:
            row |= {"g": group, "s": group_name(spans)}
        if cut := cut + line.cut_bytes:
            row["cut"] = cut
        rows.append(row)
    return rows


async def plain_log(client: Client, index: LogIndex, job: Job, first: int | None) -> dict[str, Any]:
    """Return the lines of a log that a page without JavaScript shows, and where those before and after them begin.

    Without a `first` line they are the last ones, unless the job has ended well, or the end is far away. `LAST` are the
    last ones anyway.
    """
    ended_well = job.state in (JobState.COMPLETED, JobState.CANCELLED, JobState.SKIPPED)
    if first == LAST or (first is None and not ended_well):
        total = await _count(client, index, job.id, None if first == LAST else 1)
        first = max(1, total - PLAIN_LINES + 1)
    first = first or 1
    lines = await window(client, index, job.id, first, PLAIN_LINES)
    return {
        "rows": await shown(lines),
        "earlier": max(1, first - PLAIN_LINES) if first > 1 else None,
        "later": lines[-1].line + 1 if len(lines) == PLAIN_LINES else None,
    }


async def _count(client: Client, index: LogIndex, job_id: JobId, pages_max: int | None) -> int:
    """Count the finished lines of a log; 0 if its end is not reached in `pages_max` pages of 8 MiB."""
    place = index.before(BEYOND)
    for _ in range(pages_max) if pages_max else count(1):
        page = await client.search_page(job_id, from_line=BEYOND, place=place)
        index.note(page)
        place = page.place
        if place is None:
            return whole_lines(page)
    return 0
