"""Operation that searches a job's log; its cursor is the broker's place as text, where the next page goes on."""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus
from typing import Annotated, Final

import anyio
import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from airunner.client.cli.printing import text_of
from airunner.client.web.api.forms import FoundForm, SearchedForm
from airunner.client.web.api.operation import JSON, Answer, Call, Operation, json_answer
from airunner.client.web.problems import bad_field
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.logsearch import LIMIT_MAX, PATTERN_CHARS_MAX, Context, LogLine, SearchPlace
from airunner.protocol.names import JobId, Positive

HITS: Final = 100  # of a page without `limit`
SEARCH_S: Final = 2.0  # after which a page ends where it is: the next one goes on
CURSOR_CHARS_MAX: Final = 2_048  # a URL of 8 KB passes everywhere; a place may have 256 KiB, and usually has 60 bytes


class Cursor(Struct, frozen=True, array_like=True):
    """Cursor of a search: the place where it goes on; or, for a place that no URL can carry, only its line."""

    from_line: Positive
    place: SearchPlace | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Cursor)


class SearchQuery(Struct, frozen=True, kw_only=True):
    """Query of a search."""

    pattern: Annotated[str, Meta(max_length=PATTERN_CHARS_MAX, description="Text to find; empty: every line.")] = ""
    regex: Annotated[bool, Meta(description="Whether the pattern is a regular expression of RE2.")] = False
    ignore_case: Annotated[bool, Meta(description="Whether a and A are the same.")] = False
    context: Annotated[Context, Meta(description="Lines before and after each match.")] = 0
    from_line: Annotated[Positive, Meta(description="Number of the first line that is searched.")] = 1
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX, description="Number of lines on the page.")] = HITS
    cursor: Annotated[
        str,
        Meta(
            max_length=CURSOR_CHARS_MAX,
            description="Cursor of the page before.",
            extra_json_schema={"pattern": "^[A-Za-z0-9_-]*$"},
        ),
    ] = ""


async def search_log(call: Call[SearchQuery]) -> Response:
    """Search a log for a page of lines, or for as long as a request may take."""
    query = call.query
    cursor = cursor_in(query.cursor) if query.cursor else Cursor(query.from_line)
    place = cursor.place
    hits: list[LogLine] = []
    end_s = anyio.current_time() + SEARCH_S
    async with call.asking() as client:
        while True:
            page = await client.search_page(
                call.job_id,
                query.pattern,
                regex=query.regex,
                ignore_case=query.ignore_case,
                context=query.context,
                from_line=cursor.from_line,
                limit=query.limit - len(hits),
                place=place,
            )
            hits += page.hits
            place = page.place
            if place is None or len(hits) >= query.limit or anyio.current_time() > end_s:
                break
    found = tuple(found_form(call.job_id, line) for line in hits)
    following = None if place is None else cursor_text(cursor.from_line, place)
    return json_answer(SearchedForm(hits=found, lines=page.lines, finished=page.finished, cursor=following))


def found_form(job_id: JobId, line: LogLine) -> FoundForm:
    """Convert a line that was found."""
    text, encoding = text_of(line.data.removesuffix(b"\n"))
    return FoundForm(
        job_id=job_id,
        sequence=line.sequence,
        attempt=line.attempt,
        timestamp_ms=line.timestamp_ms,
        stream=line.stream,
        line=text,
        encoding=encoding,
        number=line.line,
        offset=line.offset,
        size_bytes=line.size_bytes,
        match=line.match,
    )


def cursor_text(from_line: int, place: SearchPlace) -> str:
    """Write a cursor as text for URLs."""
    text = _text(Cursor(from_line, place))
    return text if len(text) <= CURSOR_CHARS_MAX else _text(Cursor(max(from_line, place.lines + 1)))


def cursor_in(text: str) -> Cursor:
    """Read a cursor. Raises `BadRequest`: it is none."""
    try:
        return _decoder.decode(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (*UNDECODABLE, ValueError, binascii.Error) as error:
        raise bad_field("cursor", "this is no cursor of a search") from error


def _text(cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(_encoder.encode(cursor)).rstrip(b"=").decode()


OPERATIONS: Final = (
    Operation(
        name="searchLog",
        method="GET",
        path="/v1/jobs/{job_id}/search",
        summary="Search a job's log for lines",
        role="read",
        query=SearchQuery,
        run=search_log,
        answers=(Answer("Lines that were found, and where to go on.", {JSON: SearchedForm}),),
        problems=(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
    ),
)
