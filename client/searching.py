"""Log search from Python: lines that the broker finds in a job's log, or reads by number; a part of `Client`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from msgspec.structs import replace

from airunner.client.batches import Batches, BatchIterator
from airunner.client.jobref import JobRef, id_of
from airunner.client.session import Session
from airunner.protocol.logsearch import LIMIT_MAX, LogLine, SearchPlace
from airunner.protocol.replies import LogSearched
from airunner.protocol.requests import SearchLog


class Searching(Session):
    """Search methods of `Client`."""

    def search(
        self,
        job: JobRef,
        pattern: str = "",
        *,
        regex: bool = False,
        ignore_case: bool = False,
        context: int = 0,
        from_line: int = 1,
        limit: int | None = None,
    ) -> BatchIterator[LogLine]:
        r"""Search the lines of a job's log so far on the broker, which sends only those that it finds, up to `limit`.

        The pattern is plain text, or with `regex` a regular expression of RE2; an empty one finds every line. Colours
        are ignored. `context` lines (up to 16) come before and after each match, with `LogLine.match` false. Lines
        count from 1. Raises `NotFound`, `BadPattern`.

        >>> job = await client.submit(command="seq", args=["100"])
        >>> ended = await client.wait(job)
        >>> [(line.line, line.text) async for line in client.search(job, "99$", regex=True, context=1)]
        [(98, '98'), (99, '99'), (100, '100')]
        >>> [line.data async for line in client.search(job, from_line=42, limit=2)]
        [b'42\n', b'43\n']
        """
        request = SearchLog(
            job_id=id_of(job),
            pattern=pattern,
            regex=regex,
            ignore_case=ignore_case,
            context=context,
            from_line=from_line,
        )
        return Batches(self._found(request, limit))

    async def _found(self, request: SearchLog, limit: int | None) -> AsyncGenerator[Sequence[LogLine]]:
        """Yield the lines that are found, page by page."""
        left = limit
        while left is None or left > 0:
            page = await self._ask(request if left is None else replace(request, limit=min(left, LIMIT_MAX)))
            yield page.hits if left is None else page.hits[:left]
            if page.place is None:
                return
            request = replace(request, place=page.place)
            left = None if left is None else left - len(page.hits)

    async def search_page(
        self,
        job: JobRef,
        pattern: str = "",
        *,
        regex: bool = False,
        ignore_case: bool = False,
        context: int = 0,
        from_line: int = 1,
        limit: int = LIMIT_MAX,
        place: SearchPlace | None = None,
    ) -> LogSearched:
        """Search a part of a job's log, as `search` does, from a `place` on, which an earlier page has named.

        The next page goes on at `LogSearched.place`; a page without a place reaches the end of the log. A page has up
        to `limit` lines (1,000), some more with context, and may have none: it ends after some MiB of the log.
        """
        return await self._ask(
            SearchLog(
                job_id=id_of(job),
                pattern=pattern,
                regex=regex,
                ignore_case=ignore_case,
                context=context,
                from_line=from_line,
                limit=limit,
                place=place,
            )
        )
