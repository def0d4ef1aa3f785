"""What pages show of a job, without a broker: times, links, phases, addresses of lists."""

from __future__ import annotations

import pytest

from airunner.client.web.pages.jobquery import JobQuery, query_of, read_query
from airunner.client.web.pages.phases import BAR_UNITS, phases_of
from airunner.client.web.pages.rendering import environment, static
from airunner.client.web.pages.showing import ago, ago_text, job_url, running_text, web_link
from airunner.protocol import events
from airunner.protocol.errors import BadRequest
from airunner.protocol.events import Event
from airunner.protocol.job import JobState


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (-5, "0 s ago"),
        (900, "0 s ago"),
        (59_999, "59 s ago"),
        (60_000, "1 min ago"),
        (7_300_000, "2 h ago"),
        (2e8, "2 d ago"),
    ],
)
def test_a_time_is_shown_in_its_largest_unit(ms: float, words: str) -> None:
    assert ago_text(int(ms)) == words


def test_a_time_has_its_instant_and_lasts_in_whole_seconds() -> None:
    shown = str(ago(1_800_000_000_123, 1_800_000_005_000))
    assert 'datetime="2027-01-15T08:00:00.123Z"' in shown
    assert shown.endswith(">4 s ago</time>")
    assert [running_text(ms) for ms in (0, 59_999, 61_000)] == ["0 s", "59 s", "1 min 01 s"]


@pytest.mark.parametrize(
    ("repository", "link"),
    [
        ("https://example.org/a/b.git", "https://example.org/a/b"),
        ("http://example.org/x", "http://example.org/x"),
        ("javascript:alert(1)", ""),
        ("javascript://example.org/%0aalert(1)", ""),
        ("data:text/html,<script>", ""),
        ("https://user@example.org/x", ""),
        ("https://[::1", ""),
        ("https://", ""),
        ("https://example.org/\u202egit", ""),
        ("https://ex\u0430mple.org/x", ""),
        ("https://example.org/a b", ""),
        ("git@example.org:x.git", ""),
        ("/srv/x", ""),
    ],
)
def test_only_plain_web_addresses_are_links(repository: str, link: str) -> None:
    assert web_link(repository) == link


def test_the_address_of_a_job_has_nothing_of_a_path_in_its_id() -> None:
    assert job_url("../x?y#z") == "/jobs/..%2Fx%3Fy%23z"


def test_filters_come_from_the_address_and_make_it_again() -> None:
    query = query_of([("state", "failed"), ("state", "RUNNING"), ("queue", "a+b"), ("name", ""), ("label", "a=b=c")])
    assert query == JobQuery(states=(JobState.FAILED, JobState.RUNNING), queue="a+b", labels=("a=b=c",))
    assert query.filters["metadata"] == {"a": "b=c"}
    assert query.path(before="id") == "/jobs?state=FAILED&state=RUNNING&queue=a%2Bb&label=a%3Db%3Dc&before=id"
    assert JobQuery().path() == "/jobs"


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ([("user", "x")], "user: a list of jobs has no such filter; it has state, queue"),
        ([("state", "done")], "state: expected BLOCKED or"),
        ([("queue", "a"), ("queue", "b")], "queue: this is given twice"),
        ([("label", "a")], "label: expected NAME=VALUE, not 'a'"),
        ([("label", "a=1"), ("label", "a=2")], "label: a job has one value"),
    ],
)
def test_a_filter_that_does_not_fit_is_named(parameters: list[tuple[str, str]], problem: str) -> None:
    with pytest.raises(BadRequest, match=problem) as refused:
        query_of(parameters)
    assert refused.value.misfit is not None


def test_filters_that_do_not_fit_are_named_together_and_the_others_are_kept() -> None:
    query, problems = read_query([("state", "done"), ("state", "failed"), ("label", "a"), ("owner", "ann")])
    assert query == JobQuery(states=(JobState.FAILED,), owner="ann", labels=("a",))
    assert [*problems] == ["state", "label"]


def _log(*bodies: events.Body) -> list[Event]:
    return [Event(job_id="j", sequence=at, attempt=1, body=body) for at, body in enumerate(bodies, 1)]


def test_phases_are_those_of_the_last_attempt_and_of_the_wait_before_it() -> None:
    log = _log(
        events.JobScheduled(timestamp_ms=0, queue="q"),
        events.JobLeased(timestamp_ms=50, agent="a"),
        events.ProcessStart(timestamp_ms=60, pid=1, started_at=60),
        events.ProcessEnd(timestamp_ms=70, pid=1, exit_code=1),
        events.JobScheduled(timestamp_ms=1_000, queue="q", retry=1),
        events.JobLeased(timestamp_ms=2_000, agent="a"),
        events.GitCloneStart(timestamp_ms=2_010, repository="r"),
        events.GitCloneEnd(timestamp_ms=4_000, commit="c", duration_ms=1),
        events.ProcessStart(timestamp_ms=4_005, pid=1, started_at=4_005),
    )
    running = phases_of(log, 9_005)
    assert [(phase.text, phase.open) for phase in running] == [
        ("waiting 1.0 s", False),
        ("starting 15 ms", False),
        ("checkout 1.9 s", False),
        ("command 5.0 s", True),
    ]
    ended = [
        *log,
        *_log(
            events.ProcessEnd(timestamp_ms=5_005, pid=1, exit_code=0),
            events.JobFinished(timestamp_ms=4_000, state=JobState.COMPLETED),  # by another clock
        ),
    ]
    assert [phase.text for phase in phases_of(ended, 9_005)][-2:] == ["command 1.0 s", "ending 0 ms"]
    for phases in (running, phases_of(ended, 9_005)):
        assert all(phase.width > 0 for phase in phases)
        assert phases[-1].x + phases[-1].width <= BAR_UNITS
    assert [phase.name for phase in phases_of(log[:5], 1_500)] == ["waiting"]
    assert phases_of([], 0) == phases_of(log[2:4], 0) == []  # nothing of an attempt whose beginning is not known


def test_a_value_in_a_template_is_visible_text() -> None:
    made = environment().from_string("<p title='{{ x }}'>{{ x }}</p><pre>{{ x | verbatim }}</pre>")
    shown = made.render(x="<b>\u202e'\x1b\n&")
    assert shown == (
        "<p title='&lt;b&gt;\\u202e&#39;\\x1b &amp;'>&lt;b&gt;\\u202e&#39;\\x1b &amp;</p>"
        "<pre>&lt;b&gt;\u202e&#39;\x1b\n&amp;</pre>"
    )


def test_the_address_of_a_static_file_has_its_hash() -> None:
    assert static("airunner.css").startswith("/static/airunner.css?")
    assert static("airunner.css") != static("live.js")
