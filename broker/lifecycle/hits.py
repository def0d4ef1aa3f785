"""Hits of a log search: the lines of a page that match, with the lines before and after them. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from airunner.protocol.logsearch import LogLine, SearchPlace
from airunner.protocol.requests import SearchLog

HITS_BYTES_MAX: Final = 786_432  # bytes of hits after which a page ends, so that reply and place fit in one frame


class Hits:
    """Hits of one page, in `lines`; `after`: how many of the next lines are context of the last match."""

    def __init__(self, request: SearchLog, place: SearchPlace) -> None:
        self.lines: list[LogLine] = []
        self.context = request.context
        self.before = deque(place.before, maxlen=request.context)
        self.after = min(place.after, request.context)
        self._limit = request.limit
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the page ends here."""
        return len(self.lines) >= self._limit or self._bytes >= HITS_BYTES_MAX

    def feed(self, line: LogLine) -> None:
        """Take the next line: as a match, as context of one, or as context of a match that may follow."""
        if line.match:
            for before in self.before:
                self._add(before)
            self.before.clear()
            self._add(line)
            self.after = self.context
        elif self.after:
            self.after -= 1
            self._add(line)
        else:
            self.before.append(line)

    def _add(self, line: LogLine) -> None:
        self.lines.append(line)
        self._bytes += len(line.data)
