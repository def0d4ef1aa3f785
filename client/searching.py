"""Log search from Python: lines that the broker finds in a job's log, or reads by number; a part of `Client`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Unpack

from airunner.client.batches import Batches, BatchIterator
from airunner.client.jobref import JobRef, id_of
from airunner.client.searchterms import SearchTerms
from airunner.client.session import Session
from airunner.protocol.logsearch import LIMIT_MAX, LogLine, SearchPlace
from airunner.protocol.replies import LogSearched
from airunner.protocol.requests import SearchLog


class Searching(Session):
    """Search methods of `Client`."""

    def search(
        self, job: JobRef, pattern: str = "", *, limit: int | None = None, **terms: Unpack[SearchTerms]
    ) -> BatchIterator[LogLine]:
        r"""Search the lines of a job's log so far on the broker, which sends only those that it finds, up to `limit`.

        The pattern is plain text, or with `regex` a regular expression of RE2; an empty one finds every line. Colours
        are ignored, and with `ignore_case` case too. `context` lines (up to 16) come before and after each match, with
        `LogLine.match` false. Lines count from 1; the search begins at `from_line`. Raises `NotFound`, `BadPattern`.

        >>> job = await client.submit(command="seq", args=["100"])
        >>> ended = await client.wait(job)
        >>> [(line.line, line.text) async for line in client.search(job, "99$", regex=True, context=1)]
        [(98, '98'), (99, '99'), (100, '100')]
        >>> [line.data async for line in client.search(job, from_line=42, limit=2)]
        [b'42\n', b'43\n']
        """
        return Batches(self._found(job, pattern, limit, terms))

    async def _found(
        self, job: JobRef, pattern: str, limit: int | None, terms: SearchTerms
    ) -> AsyncGenerator[Sequence[LogLine]]:
        """Yield the lines that are found, page by page."""
        left, place = limit, None
        while left is None or left > 0:
            most = LIMIT_MAX if left is None else min(left, LIMIT_MAX)
            page = await self.search_page(job, pattern, limit=most, place=place, **terms)
            yield page.hits if left is None else page.hits[:left]
            if (place := page.place) is None:
                return
            left = None if left is None else left - len(page.hits)

    async def search_page(
        self,
        job: JobRef,
        pattern: str = "",
        *,
        limit: int = LIMIT_MAX,
        place: SearchPlace | None = None,
        **terms: Unpack[SearchTerms],
    ) -> LogSearched:
        """Search a part of a job's log, as `search` does, from a `place` on, which an earlier page has named.

        The next page goes on at `LogSearched.place`; a page without a place reaches the end of the log. A page has up
        to `limit` lines (1,000), some more with context, and may have none: it ends after some MiB of the log.
        """
        return await self._ask(SearchLog(job_id=id_of(job), pattern=pattern, limit=limit, place=place, **terms))
