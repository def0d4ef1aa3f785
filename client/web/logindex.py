"""Index of a log: places at some of its lines, so that any line of a long log is found without reading those before it.

```
 line 1 ─────────── place ─────────── place ─── place ─► end
                      └ window from line n: the search goes on at the last place before n
```

The broker counts lines as fast as it reads them, and each of its pages ends at a place, which is remembered here. An
index is a cache of what every request may compute again: it is bounded, is lost with the process, and gives no access,
as each place is only of use in a request that the broker allows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

from airunner.client.web.linestyle import OPENED, group_of
from airunner.protocol.logsearch import START, LogLine, SearchPlace
from airunner.protocol.replies import LogSearched

INDEXES_MAX: Final = 256  # logs whose places are remembered
PLACES_MAX: Final = 1_024  # of one log: a place each 8 MiB reaches to 8 GiB
SPACING_LINES: Final = 2_000  # at least, between two places
UNFINISHED_BYTES_MAX: Final = 4_096  # in a place: one in the middle of a longer line is not remembered
GROUPS_MAX: Final = 1_000  # groups of one log


class LogIndex:
    """Index of one log."""

    def __init__(self) -> None:
        self._places: list[SearchPlace] = []
        self.groups: list[tuple[int, str]] = []  # line and kind of each that begins or ends a group, so far
        self.grouped = START  # where the search for groups goes on

    def before(self, line: int) -> SearchPlace | None:
        """Return the last remembered place before a line; None: the beginning of the log."""
        at = bisect_left(self._places, line, key=_lines)
        return self._places[at - 1] if at else None

    def note(self, page: LogSearched) -> None:
        """Remember where a page has ended."""
        place = page.place or page.end
        if place is None or sum(len(line.data) for line in place.unfinished) > UNFINISHED_BYTES_MAX:
            return
        at = bisect_right(self._places, place.lines, key=_lines)
        if place.lines - (self._places[at - 1].lines if at else 0) < SPACING_LINES:
            return
        self._places.insert(at, place)
        if len(self._places) > PLACES_MAX:
            del self._places[-2::-2]  # every second one, not the last

    def note_groups(self, begun_at: SearchPlace, page: LogSearched) -> None:
        """Remember the groups that a search from `begun_at` has found, unless another request has been faster."""
        if begun_at != self.grouped:
            return
        whole = whole_lines(page)
        found = ((line.line, group_of(line.text)) for line in page.hits if line.line <= whole)
        for number, kind in found:
            if kind == OPENED and self.groups and self.groups[-1][1] != "end":
                self.groups[-1] = (self.groups[-1][0], "open")
            elif kind and kind != OPENED:
                self.groups.append((number, kind))
        del self.groups[GROUPS_MAX:]
        self.grouped = page.place or page.end or begun_at


class LogIndexes:
    """Indexes of logs by job, the least recently used first."""

    def __init__(self, indexes_max: int = INDEXES_MAX) -> None:
        self._indexes: dict[str, LogIndex] = {}
        self._indexes_max = indexes_max

    def of(self, job_id: str) -> LogIndex:
        """Return the index of a job's log."""
        index = self._indexes.pop(job_id, None) or LogIndex()
        self._indexes[job_id] = index
        if len(self._indexes) > self._indexes_max:
            del self._indexes[next(iter(self._indexes))]
        return index


def whole_lines(page: LogSearched) -> int:
    """Return the number of finished lines up to the end of a page; an unfinished line has no number for good."""
    return page.lines if page.end is None else page.end.lines


def unfinished(page: LogSearched) -> list[LogLine]:
    """Return the unfinished lines at the end of a log."""
    whole = whole_lines(page)
    return [line for line in page.hits if line.line > whole]


def _lines(place: SearchPlace) -> int:
    return place.lines
