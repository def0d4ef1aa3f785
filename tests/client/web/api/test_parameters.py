"""Query strings and bodies: what fits is read, and what does not is refused by its name."""

from __future__ import annotations

import json

import pytest
from msgspec import Struct

from airunner.client.web.api.events import EventsQuery
from airunner.client.web.api.jobs import JobsQuery
from airunner.client.web.api.newjobs import NewJobs, jobs_in_json
from airunner.client.web.api.parameters import parameters_of
from airunner.client.web.api.queues import PageQuery
from airunner.client.web.api.search import Cursor, SearchQuery, cursor_in, cursor_text
from airunner.protocol.errors import BadRequest
from airunner.protocol.events import Stream
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.logsearch import LINE_BYTES_MAX, SearchPlace, UnfinishedLine


def test_a_query_string_is_read_into_its_types() -> None:
    given = [("state", "FAILED"), ("state", "RUNNING"), ("label", "a=1=2"), ("label", "b="), ("limit", "7")]
    query = parameters_of(JobsQuery, [*given, ("count", "true"), ("name", "5")])
    assert query == JobsQuery(
        state=(JobState.FAILED, JobState.RUNNING), label={"a": "1=2", "b": ""}, limit=7, count=True, name="5"
    )
    assert parameters_of(EventsQuery, [("follow", "false"), ("from_sequence", "3")]) == EventsQuery(
        follow=False, from_sequence=3
    )


def test_a_long_name_is_not_sent_back_whole() -> None:
    with pytest.raises(BadRequest) as refused:
        parameters_of(JobsQuery, [("x" * 100_000, "")])
    assert len(refused.value.message) < 500


@pytest.mark.parametrize(
    ("kind", "given", "field", "words"),
    [
        (JobsQuery, [("sate", "FAILED")], "sate", "is state meant"),
        (PageQuery, [("x", "")], "x", "there are after, limit"),
        (JobsQuery, [("limit", "many")], "limit", "expected a whole number from 1 to 100, not 'many'"),
        (JobsQuery, [("limit", "101")], "limit", "from 1 to 100"),
        (JobsQuery, [("limit", "1"), ("limit", "2")], "limit", "given twice"),
        (JobsQuery, [("count", "yes")], "count", "expected true or false, not 'yes'"),
        (JobsQuery, [("state", "DONE")], "state", "expected BLOCKED or"),
        (JobsQuery, [("queue", "a b")], "queue", "letters, digits"),
        (JobsQuery, [("label", "a")], "label", "expected NAME=VALUE, not 'a'"),
        (JobsQuery, [("label", "a=1"), ("label", "a=2")], "label", "two values"),
        (JobsQuery, [("prefix", "abc")], "prefix", "expected"),
        (SearchQuery, [("context", "17")], "context", "from 0 to 16"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused_by_its_name(
    kind: type[Struct], given: list[tuple[str, str]], field: str, words: str
) -> None:
    with pytest.raises(BadRequest, match=words) as refused:
        parameters_of(kind, given)
    assert refused.value.misfit is not None
    assert refused.value.misfit.field == field


def test_jobs_are_read_from_json() -> None:
    one = {"command": "make", "args": ["test"], "retry": {"limit": 2, "on": {"exit_codes": [75]}}}
    spec = JobSpec(command="make", args=("test",))
    assert jobs_in_json(b'{"command": "make", "args": ["test"]}') == NewJobs([spec], several=False)
    assert jobs_in_json(b'{"jobs": [{"command": "make", "args": ["test"]}]}') == NewJobs([spec], several=True)
    (read,) = jobs_in_json(json.dumps(one).encode()).specs
    assert read.retry is not None
    assert read.retry.on is not None
    assert read.retry.on.exit_codes == (75,)


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b"{", None, "not JSON"),
        (b"[" * 100_000, None, "not JSON|too many"),
        (b"[]", None, "expected an object"),
        (b"{}", "command", "missing"),
        (b'{"command": 5}', "command", "expected text, not 5"),
        (b'{"comand": "x"}', "comand", "is command meant"),
        (b'{"command": "x", "stdin_bytes": 3}', "stdin_bytes", "no such"),
        (b'{"command": "x", "depth": "all"}', "depth", "expected a whole number"),
        (b'{"command": "x", "retry": {"limit": 1, "of": 2}}', "retry.of", "no such"),
        (b'{"command": "x", "retry": {"limit": 1, "on": {"exits": []}}}', "retry.on.exits", "no such"),
        (b'{"command": "x", "branch": "b"}', "branch", "needs a repository"),
        (b'{"command": "x\\u0000"}', "command", "NUL"),
        (b'{"jobs": [], "queue": "q"}', "queue", "nothing else"),
        (b'{"jobs": []}', "jobs", "1 to 1,000"),
        (b'{"jobs": {}}', "jobs", "1 to 1,000"),
        (b'{"jobs": ["x"]}', "jobs[0]", "an object"),
        (b'{"jobs": [{"command": "x"}, {"command": "x", "queue": "a b"}]}', "jobs[1].queue", "letters"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_its_field(body: bytes, field: str | None, words: str) -> None:
    with pytest.raises(BadRequest, match=words) as refused:
        jobs_in_json(body)
    assert (refused.value.misfit and refused.value.misfit.field) == field


def test_a_cursor_is_its_place_or_its_line_if_that_is_too_long() -> None:
    place = SearchPlace(sequence=7, offset=3, lines=41)
    assert cursor_in(cursor_text(5, place)) == Cursor(5, place)
    begun = UnfinishedLine(stream=Stream.STDOUT, sequence=1, attempt=1, timestamp_ms=0, data=b"x" * LINE_BYTES_MAX)
    assert cursor_in(cursor_text(5, SearchPlace(sequence=7, lines=41, unfinished=(begun,)))) == Cursor(42)
    for wrong in ("!", "AAAA", "kQ"):
        with pytest.raises(BadRequest, match="no cursor"):
            cursor_in(wrong)
