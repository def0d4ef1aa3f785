"""Routes of a log in a page, against a real broker: windows of lines, search, groups, what is new, and the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from airunner.client.client import Client
from airunner.client.web.lines import LINES_MAX
from airunner.client.web.terminalstream import FrameKind
from airunner.protocol.events import Output
from airunner.protocol.fields import ProcessType
from airunner.protocol.job import Job
from tests.client.web.conftest import Web
from tests.client.web.test_terminalstream import decoded

HEARD_S = 30  # for a message that should come at once
ROUTES = ("lines", "groups", "find?q=x", "live", "terminal")


async def ran(client: Client, script: str, **fields: Any) -> Job:
    job = await client.submit(command="sh", args=["-c", script], **fields)
    return await client.wait(job, timeout_s=60)


async def answered(http: httpx.AsyncClient, job: Job, path: str) -> Any:
    answer = await http.get(f"/jobs/{job.id}/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def text(line: dict[str, Any]) -> str:
    return "".join(span[0] for span in line["s"])


async def messages(answer: httpx.Response) -> AsyncIterator[tuple[str, str, Any]]:
    """The kind, id and content of each server-sent event."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        fields[name] = value
        if not line and "data" in fields:
            yield fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"])
            fields = {}


async def test_any_window_of_lines_is_read_by_number(web: Web) -> None:
    async with web.client() as client:
        job = await ran(client, "seq 30000")
        http = web.bearing("read")
        for first in (1, 29_999, 12_345, 7):  # later ones from places that are remembered
            lines = (await answered(http, job, f"lines?from={first}&limit=3"))["lines"]
            assert [(line["n"], text(line)) for line in lines] == [
                (number, str(number)) for number in range(first, min(first + 3, 30_001))
            ]
        assert (await answered(http, job, "lines?from=30001"))["lines"] == []


async def test_a_line_has_its_style_its_stream_and_its_part_in_a_group(web: Web) -> None:
    script = (
        "printf '\\033[31mred\\033[0m <b>\\n--- part\\n9%%\\r10%%\\n::group::more\\n::endgroup::\\n'; "
        "printf '%09000d\\n' 0; printf '\\rstep %s' $(seq 2000); echo; echo oops >&2"
    )
    async with web.client() as client:
        job = await ran(client, script)
        http = web.bearing("read")
        lines = {text(line)[:8]: line for line in (await answered(http, job, "lines"))["lines"]}
        assert lines["red <b>"]["s"] == [["red", "fg-red"], [" <b>"]]
        assert lines["--- part"]["g"] == "folded"
        assert lines["10%"]["a"] == 1
        assert len(text(lines["00000000"])) + lines["00000000"]["cut"] == 9_001  # with the newline
        assert (text(lines["step 200"]), "cut" in lines["step 200"]) == ("step 2000", False)  # as a terminal shows it
        assert [name for name, line in lines.items() if "e" in line] == ["oops"]
        assert (lines["more"]["g"], lines[""]["g"]) == ("folded", "end")  # by their names, without marks
        groups = (await answered(http, job, "groups"))["groups"]
        assert [group["g"] for group in groups] == ["folded", "folded", "end"]
        assert groups[0]["n"] == lines["--- part"]["n"]


async def test_a_search_finds_lines_and_says_where_to_go_on(web: Web) -> None:
    async with web.client() as client:
        job = await ran(client, "seq 2500")
        http = web.bearing("read")
        assert await answered(http, job, "find?q=999") == {"hits": [999, 1999], "next": None, "lines": 2500}
        assert (await answered(http, job, "find?q=^9.9$&regex=true&from=920"))["hits"] == [
            929,
            939,
            949,
            959,
            969,
            979,
            989,
            999,
        ]
        first = await answered(http, job, "find?q=")
        assert (first["hits"], first["next"]) == ([*range(1, 1_001)], 1_001)
        refused = await http.get(f"/jobs/{job.id}/find", params={"q": "(", "regex": "true"})
        assert (refused.status_code, refused.json()["code"]) == (422, "bad-pattern")


@pytest.mark.parametrize(
    "path", ["lines?from=0", f"lines?limit={LINES_MAX + 1}", "lines?from=-1", "live?from=x", "find?from="]
)
async def test_a_number_out_of_bounds_is_refused_by_its_name(web: Web, path: str) -> None:
    answer = await web.bearing("read").get(f"/jobs/01234567-89ab-7def-8123-456789abcdef/{path}")
    assert (answer.status_code, answer.json()["field"]) == (400, path.partition("?")[2].partition("=")[0])


async def test_another_tenant_finds_no_log(web: Web) -> None:
    async with web.client() as client:
        job = await ran(client, "echo x")
        await answered(web.bearing("read"), job, "groups")
        for path in ROUTES:
            assert (await web.bearing("read", tenant="other").get(f"/jobs/{job.id}/{path}")).status_code == 404
            assert (await web.anonymous().get(f"/jobs/{job.id}/{path}")).status_code == 401


async def test_a_page_hears_of_lines_as_they_come_also_of_one_that_is_not_finished(web: Web, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"echo one; printf 'half\\rHALF'; until [ -e {gate} ]; do sleep 0.01; done; echo ' two'"
    async with web.client() as client:
        job = await client.submit(command="sh", args=["-c", script])
        last = ""
        with anyio.move_on_after(HEARD_S):
            async with web.bearing("read").stream("GET", f"/jobs/{job.id}/live") as answer:
                async for kind, number, news in messages(answer):
                    if kind == "lines" and news["open"] and text(news["open"][0]) == "HALF":
                        assert news["total"] == 1
                        last = number
                        break
        gate.touch()
        assert last == "1"
        headers = {"Last-Event-ID": last}
        async with web.bearing("read").stream("GET", f"/jobs/{job.id}/live", headers=headers) as answer:
            heard = [message async for message in messages(answer)]
        lines = [line for kind, _, news in heard if kind == "lines" for line in news["lines"]]
        assert [(line["n"], text(line)) for line in lines] == [(2, "HALF two")]
        assert ("state", "", {}) in heard
        assert heard[-1][::2] == ("end", {"total": 2})


async def test_a_page_that_opens_a_long_log_hears_how_many_lines_there_are(web: Web) -> None:
    async with web.client() as client:
        job = await ran(client, "seq 5000")
        async with web.bearing("read").stream("GET", f"/jobs/{job.id}/live") as answer:
            heard = [message async for message in messages(answer)]
        assert [kind for kind, *_ in heard] == ["state", "lines", "end"]
        assert heard[1][2] == {"total": 5_000, "lines": [], "open": []}


async def test_a_page_hears_that_the_job_has_changed_before_its_stream_began(web: Web) -> None:
    async with web.client() as client:
        job = await ran(client, "echo x")
        page = (await web.browser("read").get(f"/jobs/{job.id}")).text
        assert f'data-seen="{job.last_sequence}"' in page
        for seen, kinds in ((job.last_sequence - 1, ["state", "end"]), (job.last_sequence, ["end"])):
            path = f"/jobs/{job.id}/live?from=1&seen={seen}"
            async with web.bearing("read").stream("GET", path) as answer:
                assert [kind async for kind, *_ in messages(answer)] == kinds


async def test_a_terminal_gets_every_byte_once_however_often_it_reads_on(web: Web) -> None:
    async with web.client() as client:
        job = await ran(client, "stty size; seq 500", process_type=ProcessType.PTY)
        log = [event async for event in client.replay(job)]
        written = b"".join(event.body.data for event in log if isinstance(event.body, Output))
        got, last = b"", 0
        while last < job.last_sequence:
            answer = await web.bearing("read").get(f"/jobs/{job.id}/terminal?from_sequence={last + 1}")
            for kind, sequence, data in list(decoded(answer.content))[:2]:  # then the connection is lost
                last = sequence
                got += data if kind is FrameKind.OUTPUT else b""
        assert got == written


async def test_a_page_without_javascript_has_lines_and_links_to_the_others(web: Web) -> None:
    async with web.client() as client:
        good = await ran(client, "seq 500; printf '<script>\\033[31mred'")
        bad = await ran(client, "seq 500; exit 1")

    async def shown(job: Job, query: str = "") -> tuple[list[int], str]:
        page = (await web.browser("read").get(f"/jobs/{job.id}{query}")).text
        return [int(number) for number in re.findall('id="L([0-9]+)"', page)], page

    assert (await shown(good))[0] == [*range(1, 201)]
    assert (await shown(bad))[0] == [*range(301, 501)]
    numbers, page = await shown(good, "?from=last")
    assert numbers == [*range(302, 502)]
    assert f'href="/jobs/{good.id}?from=102#log"' in page
    assert '<span>&lt;script&gt;</span><span class="fg-red">red</span>' in page
    assert "<noscript>" in page


async def test_an_index_of_a_log_is_used_by_the_next_request(web: Web) -> None:
    async with web.client() as client:
        job = await ran(client, "seq 30000")
        await answered(web.bearing("read"), job, "lines?from=20000")
        place = web.services.log_indexes.of(job.id).before(20_200)
        assert place is not None
        assert place.lines >= 20_000
