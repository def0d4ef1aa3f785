"""The layout of a home is fixed by names alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from airunner.certs.home import Home


def test_the_default_home_is_under_the_users_own() -> None:
    assert Home.from_environment({}).root == Path.home() / ".airunner"


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert Home.from_environment({"AIRUNNER_HOME": ""}).root == Path.home() / ".airunner"


def test_a_tilde_that_no_shell_expanded_is_expanded() -> None:
    assert Home.from_environment({"AIRUNNER_HOME": "~/elsewhere"}).root == Path.home() / "elsewhere"


def test_a_relative_home_stays_put_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home.from_environment({"AIRUNNER_HOME": "here"})
    monkeypatch.chdir("/")
    assert home.certs == tmp_path / "here" / "certs"
