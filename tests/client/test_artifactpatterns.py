"""Patterns of artifacts' paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.client.artifactpatterns import PathPattern

PATHS = ["dist/a.whl", "dist/old/b.whl", "dist/old/.hidden", "report.xml", "logs/", "deep/er/report.xml", "a[1].txt"]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("*.xml", ["report.xml"]),
        ("**/*.xml", ["report.xml", "deep/er/report.xml"]),
        ("**/report.xml", ["report.xml", "deep/er/report.xml"]),
        ("dist/*.whl", ["dist/a.whl"]),
        ("dist/**/*.whl", ["dist/a.whl", "dist/old/b.whl"]),
        ("dist/**", ["dist/a.whl", "dist/old/b.whl", "dist/old/.hidden"]),
        ("dist", ["dist/a.whl", "dist/old/b.whl", "dist/old/.hidden"]),
        ("./dist/", ["dist/a.whl", "dist/old/b.whl", "dist/old/.hidden"]),
        ("d*", ["dist/a.whl", "dist/old/b.whl", "dist/old/.hidden", "deep/er/report.xml"]),
        ("*/old", ["dist/old/b.whl", "dist/old/.hidden"]),
        ("logs", ["logs/"]),
        ("logs/", ["logs/"]),
        ("a[1].txt", ["a[1].txt"]),
        ("dist/[ab].whl", ["dist/a.whl"]),
        ("dist/?.whl", ["dist/a.whl"]),
        ("DIST/*", []),
        ("dist/a", []),
        ("a.whl", []),
        ("**/old/**/b.whl", ["dist/old/b.whl"]),
        (".", PATHS),
        ("**", PATHS),
        ("*", PATHS),
    ],
)
def test_a_pattern_matches_paths(pattern: str, matching: list[str]) -> None:
    assert [path for path in PATHS if PathPattern(pattern).matches(path)] == matching


@given(st.text(max_size=20), st.text(min_size=1, max_size=20))
def test_any_text_is_a_pattern_and_a_path_matches_itself(pattern: str, path: str) -> None:
    PathPattern(pattern).matches(path)
    assert PathPattern(path).matches(path.removeprefix("./"))
