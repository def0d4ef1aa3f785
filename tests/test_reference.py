"""The help, the topics, the reference page and the manual: all made of the same descriptions."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from airunner.__main__ import run
from airunner.commandtable import EPILOG, TABLE, WIDTH_MIN
from airunner.reference import pages, reference
from airunner.topics import TOPICS
from airunner.variables import EXCEPT, ONE_CALL

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_the_help_of_each_command_is_whole_at_every_width(
    columns: int, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in reference():
        assert run([*command.name.split(), "--help"]) == 0
        shown = capfd.readouterr().out
        text = " ".join(shown.split())
        for words in (*command.paragraphs, *(each.text for each in (*command.operands, *command.options))):
            assert " ".join(words.split()) in text, command.name
        told, _, examples = shown.rpartition("\nExamples:\n")
        assert len(examples.splitlines()) == 3
        for line in told.splitlines():
            assert len(line) <= min(columns, 100) or " " not in line.strip(), (command.name, line)
            assert columns > WIDTH_MIN or line[:9].strip() or not line, "there is room for the text"


def test_an_option_shows_its_variable_and_its_default(capfd: Capture) -> None:
    for command in reference():
        for option in command.options:
            names = {each.lstrip("-") for each in option.names.replace(",", " ").split() if each.startswith("--")}
            exempt = names & (ONE_CALL | EXCEPT.get(command.name, frozenset()) | {"help"})
            assert option.variable or exempt, (command.name, option.names)
    assert run(["up", "--help"]) == 0
    assert "[AIRUNNER_SPAWN; default: 4; 1 to 256]" in " ".join(capfd.readouterr().out.split())


def test_debug_and_a_cluster_change_no_help(capfd: Capture) -> None:
    assert [run(words) for words in (["-h"], ["--debug", "--help"], ["help", "--debug"])] == [0, 0, 0]
    assert sorted(TOPICS) == EPILOG[1].partition("explains ")[2].removesuffix(".").split(", ")
    first, *rest = capfd.readouterr().out.split("Run any command")[1:]
    assert rest == [first, first]
    assert run(["help", "secret", "set"]) == 0
    assert "Usage: airunner secret set" in capfd.readouterr().out
    for group in {name for name, entry in TABLE.items() if entry.is_group}:
        assert run([group, "--help"]) == 0
        assert f"Usage: airunner {group} COMMAND" in capfd.readouterr().out


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("columns", [40, 160])
def test_a_topic_is_told(topic: str, columns: int, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run(["help", topic]) == 0
    told = capfd.readouterr().out
    assert all(len(line) <= columns for line in told.splitlines() if "  " not in line[:2] and " " in line)
    assert {"exit-codes": "125", "environment": "AIRUNNER_HOME", "times": "1h30m"}.get(topic, "") in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("formating", "there is no command and no topic formating; did you mean `airunner help formatting`?"),
        ("status", "did you mean `airunner help show`?"),
        ("env", "did you mean `airunner help environment`?"),
        ("xyzzy", "the topics are config, environment, exit-codes, formatting, job-names, times"),
        ("times config", "expected `airunner help COMMAND`, `airunner help TOPIC`, `airunner help --man [COMMAND]`"),
        ("--man submti", "there is no command airunner submti; did you mean `airunner help --man submit`?"),
        ("--man certs nothing", "there is no command airunner certs nothing; "),
        ("--man-pages /dev/null/x", "--man-pages /dev/null/x: Not a directory"),
    ],
)
def test_a_help_that_there_is_not_is_answered_with_the_nearest(words: str, told: str, capfd: Capture) -> None:
    assert run(["help", *words.split()]) == (74 if "pages" in words else 64)
    assert told in capfd.readouterr().err


@pytest.mark.skipif(shutil.which("groff") is None and "CI" not in os.environ, reason="groff is not installed")
def test_the_manual_has_a_page_for_each_command_that_renders_without_a_warning(tmp_path: Path, capfd: Capture) -> None:
    assert run(["help", "--man-pages", str(tmp_path / "man1")]) == 0
    files = sorted((tmp_path / "man1").iterdir())
    assert {file.name for file in files} == {f"{'-'.join(('airunner', *name.split()))}.1" for name in pages()}
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-cbou", *files], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    shown = " ".join(done.stdout.split())
    assert "airunner-certs-add - Add a machine to the allow-list" in shown
    assert "--connect-timeout SECONDS How long to wait" in shown
    assert "airunner logs 3f2a --grep 'error|warning' -C 3" in shown
    capfd.readouterr()
    assert run(["help", "--man", "certs", "add"]) == 0
    assert capfd.readouterr().out == (tmp_path / "man1" / "airunner-certs-add.1").read_text()
