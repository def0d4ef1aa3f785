"""Files that a job has left, over HTTP: their list, and the bytes of each, which no browser shows as a page."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from airunner.client.web.api.artifacts import disposition
from airunner.protocol.blobs import PIECE_BYTES_MAX, Slice, blob_id
from airunner.protocol.events import Artifact, ProcessEnd
from tests.client.web.api.asgi import served
from tests.client.working import Worker, blobs_in_memory


async def test_files_are_listed_and_sent_as_attachments_while_the_job_runs(tmp_path: Path) -> None:
    async with served(tmp_path, blobs_in_memory()) as web:
        job = await web.client.submit(command="true")
        worker = await Worker.lease(web.client)
        url = f"/v1/jobs/{job.id}/artifacts"
        assert json.loads((await web.get(url)).body) == {"artifacts": []}
        page = b"<script>alert(1)</script>"
        await worker.leave(site__index_html=page, empty=b"")
        await worker.publish(
            Artifact(timestamp_ms=0, path="latest", target="site/index.html"),
            Artifact(timestamp_ms=0, path="logs/", mode=0o750),
        )
        assert json.loads((await web.get(url)).body)["artifacts"] == [
            {"path": "empty", "kind": "file", "size_bytes": 0, "mode": "0644", "attempt": 1},
            {
                "path": "latest",
                "kind": "link",
                "size_bytes": 0,
                "mode": "0644",
                "attempt": 1,
                "target": "site/index.html",
            },
            {"path": "logs/", "kind": "folder", "size_bytes": 0, "mode": "0750", "attempt": 1},
            {"path": "site/index.html", "kind": "file", "size_bytes": 25, "mode": "0644", "attempt": 1},
        ]
        got = await web.get(f"{url}/site/index.html")
        assert (got.status, got.body, got.over) == (200, page, True)
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''index.html"
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["content-length"] == "25"
        assert (await web.get(f"{url}/empty")).body == b""
        for path, status in (
            ("site/none", 404),
            ("site/index.html/", 404),
            ("../artifacts", 404),
            ("", 404),
            ("site", 400),
            ("logs/", 400),
            ("latest", 400),
        ):
            assert (await web.get(f"{url}/{path}")).status == status, path
        assert (await web.get("/v1/jobs/00000000-0000-4000-8000-000000000000/artifacts")).status == 404
        assert (await web.get(f"{url}?limit=3")).status == 400


async def test_a_large_file_is_sent_piece_by_piece_and_one_that_is_not_whole_is_cut_off(tmp_path: Path) -> None:
    async with served(tmp_path, blobs_in_memory()) as web:
        job = await web.client.submit(command="true")
        worker = await Worker.lease(web.client)
        pieces = [Random(number).randbytes(PIECE_BYTES_MAX) for number in range(3)]
        await worker.put(*pieces)
        slices = [Slice(blob_id(piece), 0, PIECE_BYTES_MAX) for piece in pieces]
        missing = [slices[0], Slice(bytes(32), 0, PIECE_BYTES_MAX)]
        for path, parts in (("large", slices), ("missing", missing)):
            size_bytes = len(parts) * PIECE_BYTES_MAX
            await worker.publish(Artifact(timestamp_ms=0, path=path, size_bytes=size_bytes, slices=tuple(parts)))
        large = await web.get(f"/v1/jobs/{job.id}/artifacts/large")
        assert large.body == b"".join(pieces)
        assert large.over
        whole, tag = b"".join(pieces), large.headers["etag"]
        for first, last in ((0, 0), (5, 9), (PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX), (7, 2 * PIECE_BYTES_MAX + 7)):
            headers = {"Range": f"bytes={first}-{last}", "If-Range": tag}
            part = await web.get(f"/v1/jobs/{job.id}/artifacts/large", headers=headers)
            assert (part.status, part.body) == (206, whole[first : last + 1])
            assert part.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"
        end = await web.get(f"/v1/jobs/{job.id}/artifacts/large", headers={"Range": "bytes=-3"})
        assert (end.status, end.body, end.headers["content-length"]) == (206, whole[-3:], "3")
        changed = await web.get(
            f"/v1/jobs/{job.id}/artifacts/large", headers={"Range": "bytes=1-2", "If-Range": '"another"'}
        )
        assert (changed.status, changed.body) == (200, whole)
        beyond = await web.get(f"/v1/jobs/{job.id}/artifacts/large", headers={"Range": f"bytes={len(whole)}-"})
        assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(whole)}")
        cut = await web.get(f"/v1/jobs/{job.id}/artifacts/missing")
        assert (cut.body, cut.over) == (pieces[0], False)


async def test_the_page_of_a_job_links_to_its_files_and_to_nothing_else(tmp_path: Path) -> None:
    async with served(tmp_path, blobs_in_memory()) as web:
        job = await web.client.submit(command="true", artifacts=["**"])
        worker = await Worker.lease(web.client)
        page = web.open(f"/jobs/{job.id}/summary", headers={"accept": "text/html"})
        assert b"Artifacts:" not in await page.read()
        await worker.publish(ProcessEnd(timestamp_ms=0, pid=1, exit_code=0))
        await worker.leave(dist__report_html=b"12345678")
        await worker.publish(
            Artifact(timestamp_ms=0, path="latest", target="dist/report.html"),
            Artifact(timestamp_ms=0, path="../../../jobs"),
            Artifact(timestamp_ms=0, path='"><img src=x>?#'),
            *(Artifact(timestamp_ms=0, path=f"many/{number:03}") for number in range(100)),
        )
        shown = (await web.open(f"/jobs/{job.id}/summary", headers={"accept": "text/html"}).read()).decode()
        base = f"/v1/jobs/{job.id}/artifacts"
        assert "Artifacts: 104 files, 8 bytes" in shown
        assert f'<a href="{base}/dist/report.html">dist/report.html</a> <span class="muted">8 bytes</span>' in shown
        assert f'<a href="{base}/%22%3E%3Cimg%20src%3Dx%3E%3F%23">&#34;&gt;&lt;img src=x&gt;?#</a>' in shown
        assert "<li>../../../jobs " in shown
        assert "<li>latest → dist/report.html " in shown
        assert shown.count(f'href="{base}') == 98
        assert f"and 4 more files: <code>airunner artifacts {job.id}</code>" in shown


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b.txt", "b.txt"), ('x"; filename=evil.exe', "x%22%3B%20filename%3Devil.exe"), ("é\r\n", "%C3%A9%0D%0A")],
)
def test_a_name_cannot_end_the_header_that_it_is_in(path: str, name: str) -> None:
    assert disposition(path) == f"attachment; filename*=UTF-8''{name}"
