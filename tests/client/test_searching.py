"""Log search by `Client`: page after page, by numbers, to the end of a log that grows."""

from __future__ import annotations

import pytest

from airunner.protocol.errors import BadPattern, NotFound
from airunner.protocol.logsearch import LIMIT_MAX
from tests.client.wire import brokered
from tests.client.working import Worker


async def test_all_pages_of_a_search_are_one_iteration_up_to_its_limit() -> None:
    async with brokered() as (wire, client):
        job = await client.submit(command="true")
        worker = await Worker.lease(client)
        lines = 2 * LIMIT_MAX + 500
        await worker.print(b"".join(b"line %d\n" % number for number in range(1, lines + 1)))
        found = [line async for line in client.search(job, "line")]
        assert [line.text for line in found] == [f"line {number}" for number in range(1, lines + 1)]
        assert wire.asked.count("SearchLog") == 3
        assert [line.line async for line in client.search(job, limit=3, from_line=7)] == [7, 8, 9]
        assert [line.line async for line in client.search(job, limit=LIMIT_MAX + 2)][-1] == LIMIT_MAX + 2
        assert [line.line async for line in client.search(job, "e 77", context=2, limit=3)] == [75, 76, 77]
        assert [line async for line in client.search(job, limit=0)] == []
        assert wire.asked.count("SearchLog") == 3 + 4


async def test_a_later_search_goes_on_where_the_log_ended_and_finds_the_unfinished_line_again() -> None:
    async with brokered() as (_, client):
        job = await client.submit(command="true")
        worker = await Worker.lease(client)
        await worker.print(b"one\ntw")
        page = await client.search_page(job)
        assert ([line.text for line in page.hits], page.place, page.finished) == (["one", "tw"], None, False)
        await worker.print(b"o\nthree\n")
        await worker.complete()
        page = await client.search_page(job, place=page.end)
        assert [(line.line, line.text, line.sequence) for line in page.hits] == [(2, "two", 3), (3, "three", 4)]
        assert (page.place, page.end, page.finished, page.lines) == (None, None, True, 3)


async def test_what_cannot_be_searched_is_refused() -> None:
    async with brokered() as (_, client):
        job = await client.submit(command="true")
        with pytest.raises(BadPattern, match=r"missing \): \(a; a regular expression is one of RE2"):
            await client.search_page(job, "(a", regex=True)
        with pytest.raises(BadPattern):
            await client.search_page(job, "[^x]{1000}" * 3, regex=True)
        with pytest.raises(NotFound):
            await client.search_page("another", "a")
