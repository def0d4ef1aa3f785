"""Operations on the files that a job has left: the list of them, and the bytes of one."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncGenerator
from hashlib import blake2b
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from starlette.responses import Response

from airunner.client.artifactfiles import ArtifactFile, file_at
from airunner.client.web.api.byteranges import RANGE, TAG_BYTES, wanted_bytes
from airunner.client.web.api.forms import ArtifactsForm
from airunner.client.web.api.operation import JSON, Answer, Call, Operation, json_answer
from airunner.client.web.api.streams import streamed
from airunner.client.web.problems import WebError, answer, problem_of

BYTES: Final = "application/octet-stream"  # whatever a file says that it is: no browser shows it as a page of ours


async def list_artifacts(call: Call[None]) -> Response:
    """List the files that a job has left so far."""
    async with call.asking() as client:
        files = await client.artifacts(call.job_id)
    return json_answer(ArtifactsForm(artifacts=tuple(file.form for file in files)))


async def get_artifact(call: Call[None]) -> Response:
    """Send the bytes of a file, or a range of them; each piece is checked before it is sent."""
    async with call.asking() as client:
        file = file_at(await client.artifacts(call.job_id), call.request.path_params["path"])
    length, tag = file.size_bytes, _tag(file)
    headers = {"Content-Disposition": disposition(file.path), "Accept-Ranges": "bytes", "ETag": tag}
    wanted = wanted_bytes(call.request.headers.get("range", ""))
    if wanted is None or call.request.headers.get("if-range", tag) != tag:
        headers["Content-Length"] = str(length)
        return streamed(call, _content(call, file, None), BYTES, headers=headers)
    found = wanted.of(length)
    if found is None:
        headers["Content-Range"] = f"bytes */{length}"
        none = WebError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"Range: the file has {length:,} bytes")
        return answer(call.request, problem_of(none), headers)
    headers["Content-Range"] = f"bytes {found[0]}-{found[-1]}/{length}"
    headers["Content-Length"] = str(len(found))
    return streamed(call, _content(call, file, found), BYTES, HTTPStatus.PARTIAL_CONTENT, headers)


def _tag(file: ArtifactFile) -> str:
    """Make the tag of a file's content: another one of the same path has another."""
    slices = [(each.blob, each.offset, each.length) for each in (*file.slices, *file.index)]
    return f'"{blake2b(repr(slices).encode(), digest_size=TAG_BYTES).hexdigest()}"'


def disposition(path: str) -> str:
    """Return the header by which a browser stores a file under its name, and does not show it (RFC 6266, 8187)."""
    return f"attachment; filename*=UTF-8''{quote(posixpath.basename(path), safe='')}"


async def _content(call: Call[None], file: ArtifactFile, positions: range | None) -> AsyncGenerator[bytes]:
    async with (
        call.services.clients.of(call.login.token) as client,
        client.read_artifact(call.job_id, file, positions) as pieces,
    ):
        async for piece in pieces:
            yield piece


OPERATIONS: Final = (
    Operation(
        name="listArtifacts",
        method="GET",
        path="/v1/jobs/{job_id}/artifacts",
        summary="List the files that a job has left, also while it runs",
        role="read",
        run=list_artifacts,
        answers=(Answer("The files, as `airunner artifacts --json` prints each.", {JSON: ArtifactsForm}),),
        problems=(HTTPStatus.NOT_FOUND,),
    ),
    Operation(
        name="getArtifact",
        method="GET",
        path="/v1/jobs/{job_id}/artifacts/{path:path}",
        summary="Get a file that a job has left",
        role="read",
        run=get_artifact,
        headers={"Range": RANGE},
        answers=(
            Answer("The bytes of the file.", {BYTES: bytes}),
            Answer("The bytes of the range.", {BYTES: bytes}, HTTPStatus.PARTIAL_CONTENT),
        ),
        problems=(HTTPStatus.NOT_FOUND, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
    ),
)
