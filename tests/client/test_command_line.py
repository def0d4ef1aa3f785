"""The whole command line, short of a broker."""

from __future__ import annotations

import getpass
import io
import subprocess
import sys
from pathlib import Path

import pytest

import airunner
from airunner.__main__ import run


@pytest.fixture(autouse=True)
def bare_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRUNNER_HOME", str(tmp_path))
    for name in ("AIRUNNER_BROKER", "AIRUNNER_TOKEN", "JWT_SIGNING_KEY", "JWT_PUBLIC_KEY"):
        monkeypatch.delenv(name, raising=False)


COMMANDS = ["submit", "monitor", "list", "show", "cancel", "retry", "queues", "agents", "pause", "resume", "drain"]


@pytest.mark.parametrize("command", [*COMMANDS, "broker", "agent", "token", "certs"])
def test_every_command_explains_itself(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert "Usage: airunner" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (["submit"], 2, "there is no command to run"),
        (["submit", "a", "b"], 2, "put -- before the command"),
        (["submit", "--config", "/no/such/file"], 2, "cannot read /no/such/file"),
        (["submit", "--working-directory", "../x", "--", "true"], 2, "working_directory must be a path inside"),
        (["submit", "--queue", "a b", "--", "true"], 2, "queue: expected"),
        (["submit", "--secret-file", "a/b", "--", "true"], 2, "secret_files: expected names of 1 to 128 letters"),
        (
            ["submit", "--secret", "A", "--secret-file", "A", "--", "true"],
            2,
            "A is named in secrets and in secret_files",
        ),
        (["submit", "--request-id", "", "--", "true"], 2, "--request-id is empty"),
        (["submit", "--", "true"], 2, "run `airunner certs init`"),
        (["monitor", "some-job"], 2, "run `airunner certs init`"),
        (["list", "--state", "asleep"], 2, "asleep"),
        (["monitor", "some-job", "--from-sequence", "0"], 2, "--from-sequence"),
        (["cancel"], 2, "JOB"),
        (["submit", "--priority", "101", "--", "true"], 2, "--priority"),
        (["submit", "--not-before", "soon", "--", "true"], 2, "expected an instant"),
        (["list", "--metadata", "x"], 2, "expected NAME=VALUE"),
        (["agent", "--name", "bad name"], 2, "--name 'bad name': expected"),
        (["agent", "--queue", "-x"], 2, "--queue '-x': expected"),
        (["agent", "--broker", " "], 2, "name 1 to 64 brokers"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_bad_input_is_told_in_words_and_an_exit_code(
    argv: list[str], code: int, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(argv) == code
    err = capfd.readouterr().err
    assert told in err
    assert "Traceback" not in err


def test_an_unreachable_address_is_told_before_anything_is_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["certs", "init"]) == 0
    assert run(["list", "--broker", "nowhere"]) == 2
    assert "write tcp://HOST:PORT" in capfd.readouterr().err


def test_the_public_names_are_all_there() -> None:
    for name in dir(airunner):
        assert getattr(airunner, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = airunner.nonsense


def test_an_error_holds_nothing_that_a_terminal_obeys(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["certs", "export", "x\x1b]0;t\x07\x9b6n\u202e"]) == 2
    told = capfd.readouterr().err
    assert "the keys of x]0;t6n are not here" in told
    assert not [char for char in told if not char.isprintable() and char != "\n"]


class NoTyping(io.StringIO):
    """A terminal at which Ctrl-D is pressed."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stdin", [None, NoTyping()], ids=["closed", "Ctrl-D"])
def test_a_secret_that_is_not_given_is_told(
    stdin: io.StringIO | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def nothing(_: str) -> str:
        raise EOFError

    assert run(["certs", "queue-key", "default"]) == 0
    capfd.readouterr()
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(getpass, "getpass", nothing)
    assert run(["secret", "set", "DEPLOY"]) == 2
    told = capfd.readouterr().err
    assert told.endswith("airunner: the value of DEPLOY is empty: give it on stdin, or with --from-file FILE\n")
    assert "Abort" not in told


def test_help_imports_nothing_that_it_does_not_need() -> None:
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "airunner", "submit", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stderr
    imported = {line.rpartition("|")[2].strip() for line in shown.splitlines()}
    assert not imported & {"anyio", "zmq", "rich", "yaml", "apsw", "jwt", "nacl", "cryptography", "asyncio"}
