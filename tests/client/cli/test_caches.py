"""Caches as people write them, in options and job files, and as `show` prints them."""

from __future__ import annotations

import pytest

from airunner.client.cli.jobfile import parse_job_file
from airunner.client.cli.notation import lines_of, read
from airunner.client.cli.sources import Sources
from airunner.client.web.pages.formfields import draft_of
from airunner.protocol.caches import PRESETS, Cache, SaveWhen
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import FIELDS, JobSpec

FIELD = FIELDS["caches"]
GO = PRESETS["go"]


@pytest.mark.parametrize(
    ("written", "cache"),
    [
        ("go", GO),
        ("go@release", Cache(name="go", paths=GO.paths, key=GO.key, label="release")),
        ("deps:~/deps", Cache(name="deps", paths=("~/deps",))),
        (
            "deps:~/deps,vendor:a.lock,b/*.lock",
            Cache(name="deps", paths=("~/deps", "vendor"), key=("a.lock", "b/*.lock")),
        ),
        ("go@x:build", Cache(name="go", paths=("build",), label="x")),
    ],
)
def test_every_notation_of_a_cache_is_read(written: str, cache: Cache) -> None:
    assert read(FIELD, [written], 0) == (cache,)
    assert draft_of({"command": "true", "caches": f"{written}\n"}, 0).spec == JobSpec(command="true", caches=(cache,))


@pytest.mark.parametrize(
    ("content", "caches"),
    [
        ("cache: go", (GO,)),
        ("cache: [go, npm]", (GO, PRESETS["npm"])),
        ("cache: {name: deps, paths: x, key: y}", (Cache(name="deps", paths=("x",), key=("y",)),)),
        (
            "cache: [{name: go, restore: false, save: always}]",
            (Cache(name="go", paths=GO.paths, key=GO.key, restore=False, save=SaveWhen.ALWAYS),),
        ),
        ("cache: []", None),
    ],
)
def test_a_cache_of_a_job_file_is_a_name_or_a_mapping(content: str, caches: tuple[Cache, ...] | None) -> None:
    assert parse_job_file(content.encode(), "job.yaml", 0, Sources()).get("caches") == caches


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("cache: [rust]", "line 1: cache: expected go, cargo, .*, or a NAME:PATH, not 'rust'"),
        ("cache: [{paths: [x]}]", "line 1: cache: name"),
        ("cache: [{name: Go, paths: [x]}]", "line 1: cache: name: expected 1 to 64 small letters"),
        ("cache:\n- {name: go, sav: never}", "line 2: cache: unknown key 'sav'; did you mean save"),
        ("cache: [{name: go, save: often}]", "save: expected on-success or always or never"),
        ("cache: [{name: go, restore: 3}]", "cache: expected a list such as"),
    ],
)
def test_a_cache_that_does_not_fit_is_said_with_its_line(content: str, problem: str) -> None:
    with pytest.raises(OperatorError, match=problem):
        parse_job_file(content.encode(), "job.yaml", 0, Sources())


def test_a_cache_is_shown_in_one_line() -> None:
    changed = Cache(name="deps", paths=("a", "b"), label="release", restore=False, save=SaveWhen.NEVER)
    always = Cache(name="x", paths=("c",), save=SaveWhen.ALWAYS)
    assert lines_of(FIELD, JobSpec(command="true", caches=(GO, changed, always))) == [
        "go: ~/.cache/go-build ~/go/pkg/mod, key **/go.sum",
        "deps: a b, label release, not restored, never saved",
        "x: c, always saved",
    ]
