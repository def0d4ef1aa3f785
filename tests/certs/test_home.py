"""The layout of a home is fixed by names alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from airunner.certs.home import Home


@pytest.mark.parametrize(
    ("environ", "place"),
    [({}, ".airunner"), ({"AIRUNNER_HOME": ""}, ".airunner"), ({"AIRUNNER_HOME": "~/elsewhere"}, "elsewhere")],
)
def test_the_home_is_named_or_under_the_users_own(environ: dict[str, str], place: str) -> None:
    assert Home.from_environment(environ).root == Path.home() / place


def test_a_relative_home_stays_put_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home.from_environment({"AIRUNNER_HOME": "here"})
    monkeypatch.chdir("/")
    assert home.certs == tmp_path / "here" / "certs"
