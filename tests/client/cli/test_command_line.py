"""The whole command line, short of a broker."""

from __future__ import annotations

import errno
import getpass
import io
import logging
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from airunner.__main__ import run
from airunner.certs.home import Home
from airunner.certs.tokenkeys import load_verifying_keys, new_signing_pem, parse_signing_key, public_pem
from airunner.certs.tokenverifier import TokenVerifier
from airunner.commandline import make_app
from airunner.commandtable import TABLE, WIDTH_MIN
from airunner.examples import EXAMPLES
from airunner.switches import respelled


@pytest.fixture(autouse=True)
def bare_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRUNNER_HOME", str(tmp_path))
    for name in ("AIRUNNER_BROKER", "AIRUNNER_TOKEN", "JWT_SIGNING_KEY", "JWT_PUBLIC_KEY"):
        monkeypatch.delenv(name, raising=False)


COMMANDS = [
    "submit",
    "monitor",
    "logs",
    "artifacts",
    "apply",
    "list",
    "show",
    "cancel",
    "retry",
    "queues",
    "agents",
    "brokers",
    "pause",
    "resume",
    "drain",
]


@pytest.mark.parametrize("command", [*COMMANDS, "broker", "agent", "token", "certs"])
def test_every_command_explains_itself(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert "Usage: airunner" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["submit"], "there is no command to run"),
        (["submit", "--config", "/no/such/file"], "cannot read /no/such/file"),
        (["submit", "--queue", "a b", "--", "true"], "queue: expected"),
        (["submit", "--secret-file", "a/b", "--", "true"], "--secret-file: item 1: expected 1 to 128 letters"),
        (["submit", "--", "true"], "run `airunner up`"),
        (["list", "--all", "--watch"], "--watch shows the newest jobs as they change: leave out --all"),
        (
            ["list", "--state", "asleep"],
            "--state: expected blocked or scheduled or running or completed or failed or c",
        ),
        (["export", "x", "--format", "RAW"], "run `airunner up`"),
        (["artifacts", "x", "got"], "'got': expected get or cat, as in `airunner artifacts x get`"),
        (["artifacts", "x", "cat"], "cat prints one file, as in `airunner artifacts x cat PATH`"),
        (["artifacts", "x", "-o", "d"], "--output is for get, as in `airunner artifacts x get -o FOLDER`"),
        (["list", "--connect-timeout", ""], "--connect-timeout '': expected a number and a unit"),
        (["agent", "--name", ""], "--name '': expected"),
        (["monitor", "some-job", "--from-sequence", "0"], "run `airunner up`"),
        (["monitor", "some-job", "--from-sequence", "-1"], "--from-sequence"),
        (["submit", "--monitor=false", "--process-type", "PTY", "--", "true"], "run `airunner up`"),
        (["submit", "--no-monitor", "--cancel-on-exit", "--", "true"], "--cancel-on-exit needs --monitor"),
        (["submit", "--monitor=maybe", "--", "true"], "--monitor 'maybe': expected true or false"),
        (["list", "--connect-timeout", "soon"], "--connect-timeout 'soon': expected a number and a unit"),
        (["token", "--subject", "x", "--ttl", "1h30m", "--signing-key", "/no/such"], "/no/such is missing: name a"),
        (["monitor", "x", "--event-filter", "output,nonsense"], "--event-filter NONSENSE: the kinds of events are"),
        (["monitor", "x", "--event-filter", "output,process-end", "--timestamps"], "run `airunner up`"),
        (["monitor", "x", "--events", "some"], "--events: expected all or output or lifecycle, not 'some'"),
        (["monitor", "x", "--events", "all", "--event-filter", "output"], "both choose events: leave one of them out"),
        (["monitor", "x", "--speed", "4"], "--speed is for --playback, which is not given"),
        (["monitor", "x", "--playback", "--speed", "0"], "--speed: expected a number from 0.01 to 1000, not '0'"),
        (["monitor", "x", "--playback", "--idle-max", "x"], "--idle-max 'x': expected a number and a unit"),
        (["monitor", "x", "y", "--playback"], "--playback plays one job, not 2"),
        (["monitor", "x", "--timestamps=Relative"], "run `airunner up`"),
        (["monitor", "x", "--timestamps", "--json"], "--timestamps is for the console"),
        (["agent", "--visibility-timeout", "2s"], "--visibility-timeout 2s: expected 3 to 43200 seconds"),
        (["agent", "--cancel-grace", "soon"], "--cancel-grace 'soon': expected a number and a unit"),
        (["show"], "JOB... is missing, as in `airunner show 3f2a`; see `airunner show [OPTIONS] JOB...`"),
        (["cancel"], "which jobs? name them, `airunner cancel JOB...`, or choose them with --queue"),
        (["token"], "--subject is missing, as in `airunner token --subject ada`; see `airunner token --help`"),
        (
            ["store", "copy", "/a/b", "memory:"],
            "FROM '/a/b' is not the URL of a store; write sqlite:////a/b for a file, postgresql://",
        ),
        (
            ["store", "check", "--store", "mysql://h"],
            "write sqlite:///PATH, memory:, postgresql://HOST/DATABASE or aws:TABLE",
        ),
        (["secret", "set", "X", "--key", "/none"], "and copy default.public from there"),
        (["queues", "a", "b"], "unexpected argument a b; see `airunner queues [OPTIONS]`"),
        (["list", "--limt", "5"], "no option --limt; did you mean --limit? `airunner list --help` lists all"),
        (["list", "--limit"], "--limit needs a value; see `airunner list --help`"),
        (["--json", "list"], "no option --json before the command: a command's options come after it"),
        (["list", "--limit", "0"], "--limit: expected a whole number of at least 1, not '0'"),
        (["list", "-n", "9" * 19], "--limit: expected a whole number of at least 1, with up to 18 digits, not '9"),
        (["agent", "--spawn", "two"], "--spawn: expected a whole number from 1 to 256, not 'two'"),
        (["agent", "--mirror-gib", "nan"], "--mirror-gib: expected a number from 0 to 1000000, not 'nan'"),
        (["broker", "--retain-days", "40000"], "--retain-days 40000: expected up to 36500 days"),
        (["list", "--metadata", "a=1", "--metadata", "a=2"], "--label: a job has one value for each name"),
        (["monitor", "x", "--event-filter", ""], "--event-filter is empty: the kinds of events are"),
        (["monitor", "x", "--from-timestamp", "+10m"], "--from-timestamp '+10m': expected an instant such as"),
        (["monitor", "x", "--from-timestamp", "10m ago"], "run `airunner up`"),
        (["logs", "x", "--tail", "-1"], "--tail: expected a whole number from 0 to 1000000, not '-1'"),
        (["logs", "x", "--grep", "("], "--grep '(': expected a regular expression"),
        (["logs", "x", "--context", "2"], "--context is for --grep, which is not given"),
        (["logs", "x", "-f", "--until", "1m"], "--until ends with the past, and --follow goes on"),
        (["logs", "x", "--since", "soon"], "--since 'soon': expected an instant such as"),
        (["logs", "x", "--since", "1m", "--until", "2m"], "--since 1m is later than --until 2m"),
        (["logs", "x", "-ft", "--timestamps"], "run `airunner up`"),
        (["submit", "-f", "a", "-f", "b"], "--config is given twice: a job has one job file"),
        (["submit", "-f", "", "--", "true"], "--config is empty: name a file"),
        (["run", "--env-file", "", "--", "true"], "--env-file is empty: name a file"),
        (["submit", "--env-file", "/dev/zero", "--", "true"], "--env-file: /dev/zero is larger than 1048576 bytes"),
        (["monitor", "x", "--from-sequence", str(2**63)], "--from-sequence: expected a whole number from 0 to 9007199"),
        (["run"], "as in `airunner run REPOSITORY -- make test`"),
        (["run", "--secret-file", "NO_SUCH", "--", "true"], "--secret-file: there is no variable NO_SUCH in your env"),
        (["run", "--secret", "NO_SUCH", "--", "true"], "--secret: there is no variable NO_SUCH in your environment"),
        (["agent", "--name", "bad name"], "--name 'bad name': expected"),
        (["agent", "--queue", "-x"], "--queue '-x': expected"),
        (["agent", "--broker", " "], "name 1 to 64 brokers"),
        (["nonsense"], "there is no command nonsense; `airunner --help` lists all"),
        (["status", "j b"], "there is no command status; did you mean `airunner show 'j b'`?"),
        (["log", "j"], "there is no command log; did you mean `airunner logs j`?"),
        (["lsit", "-n", "3"], "there is no command lsit; did you mean `airunner list`?"),
        (["secret", "lst"], "there is no command secret lst; did you mean `airunner secret list`?"),
        (["secret"], "Usage: airunner secret"),
    ],
)
def test_bad_input_is_told_in_words_and_an_exit_code(
    argv: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(argv) == 64
    err = capfd.readouterr().err
    assert told in err
    assert "Traceback" not in err


@pytest.mark.parametrize("key", ["secrets", "secretFiles"])
def test_a_secret_of_a_job_file_that_is_not_set_is_named_by_its_line(
    key: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text(f"command: echo\n{key}:\n- NO_SUCH\n")
    assert run(["run", "-f", str(tmp_path / "job.yaml")]) == 64
    assert f"job.yaml, line 3: {key}: there is no variable NO_SUCH in your environment" in capfd.readouterr().err


NO_BROKER = "tcp://127.0.0.1:1"


def test_the_time_to_wait_for_a_broker_is_the_callers(capfd: pytest.CaptureFixture[str]) -> None:
    """`--connect-timeout 0` is as if it were not given; that it bounds no job is shown on a real cluster."""
    assert run(["certs", "init"]) == 0
    assert run(["list", "--broker", "nowhere"]) == 64
    assert "write tcp://HOST:PORT" in capfd.readouterr().err
    for command in (["list"], ["submit", "--monitor=false", "--", "true"], ["secret", "list"], ["cancel", "x"]):
        name, *words = command
        asked = [name, words.pop(0)] if name == "secret" else [name]
        assert run([*asked, "--broker", NO_BROKER, "--connect-timeout", "200ms", *words]) == 69
        assert f"no broker answers at {NO_BROKER} (waited 0.2 s)" in capfd.readouterr().err


def test_a_broker_whose_name_does_not_resolve_is_not_waited_for(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    assert run(["certs", "init"]) == 0
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    assert run(["list", "--broker", "tcp://nosuch:7070,tcp://neither:7070"]) == 69
    assert "the host of tcp://neither:7070 does not resolve" in capfd.readouterr().err


def test_debug_tells_what_is_tried_and_where_an_error_comes_from(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("airunner")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    try:
        assert run(["certs", "init"]) == 0
        assert run(["token", "--subject", "x"]) == 0
        secret = capfd.readouterr().out.split()[-1]
        asked = [
            "submit",
            "--broker",
            NO_BROKER,
            "--connect-timeout",
            "0.2",
            "--token",
            secret,
            "--env",
            "A_TOKEN=hunter22",
        ]
        assert run([*asked, "--debug", "--", "true"]) == 69
    finally:
        logger.setLevel(logging.NOTSET)
    told = capfd.readouterr().err
    for words in ("airunner.channel: asking EnqueueJob", f"connecting to {NO_BROKER}", "Traceback", "no broker"):
        assert words in told
    assert secret not in told
    assert "hunter22" not in told


def test_a_named_key_signs_and_verifies_tokens(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home has none; a file that is named beats the variable, which names none."""
    pem = tmp_path / "key.pem"
    pem.touch(0o600)
    pem.write_bytes(new_signing_pem())
    monkeypatch.setenv("JWT_SIGNING_KEY", "/no/such/key")
    assert run(["token", "--subject", "ada", "--ttl", "1h30m", "--signing-key", str(pem)]) == 0
    token = capfd.readouterr().out.strip()
    public = tmp_path / "key.public.pem"
    public.write_bytes(public_pem(parse_signing_key(pem.read_bytes(), "pem").public_key()))
    monkeypatch.setenv("JWT_PUBLIC_KEY", "/no/such/key")
    keys = load_verifying_keys(os.environ, Home.from_environment(os.environ), public)
    now_s = time.time()
    principal = TokenVerifier(keys).verify(token.encode(), now_s)
    assert principal.subject == "ada"
    assert principal.expires_s - now_s == pytest.approx(5_400, abs=60)
    assert run(["certs", "init"]) == 0
    capfd.readouterr()
    assert run(["broker", "--jwt-public-key", str(pem)]) == 64
    assert f"{pem} holds a private key" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "parsed"),
    [
        (["--monitor=false", "--json=true"], ["--no-monitor", "--json"]),
        (["--monitor=1", "--json=False", "--no-monitor=off"], ["--monitor", "--monitor"]),
        (["--env", "--monitor=false", "--monitor=no"], ["--env", "--monitor=false", "--no-monitor"]),
        (["--env=--monitor=false"], ["--env=--monitor=false"]),
        (["-f", "--json=no", "-qf", "--json=no"], ["-f", "--json=no", "-qf", "--json=no"]),
        (["x", "--", "--monitor=false"], ["x", "--", "--monitor=false"]),
        (["--env"], ["--env"]),
    ],
)
def test_a_switch_may_be_given_a_truth_and_no_other_word_is_touched(words: list[str], parsed: list[str]) -> None:
    group = typer.main.get_command(make_app())
    options = group.commands["submit"].params
    assert respelled(words, options) == parsed


def test_the_help_of_every_command_ends_with_three_examples_that_are_right(capfd: pytest.CaptureFixture[str]) -> None:
    app = typer.main.get_command(make_app())
    root = app.make_context("airunner", ["list"])
    listed = {name for name, entry in TABLE.items() if entry.line}
    named = {*listed, *(f"{name} {each}" for name in listed for each in getattr(app.commands[name], "commands", ()))}
    assert set(EXAMPLES) == {name for name in named if not getattr(app.commands.get(name), "commands", None)}
    for name, lines in EXAMPLES.items():
        assert run([*name.split(), "--help"]) == 0
        assert capfd.readouterr().out.endswith("\nExamples:\n" + "".join(f"  {line}\n" for line in lines))
        for line in lines:
            assert len(line) <= 78
            piped = next(part for part in line.split(" | ") if "airunner" in part)
            words = shlex.split(piped.partition(" && ")[0].partition(" < ")[0].partition(" > ")[0])
            at = words.index("airunner") + 1
            group, found, rest = root, app, words[at:]
            while hasattr(found, "commands"):
                _, found, rest = found.resolve_command(group, rest)
                group = found.make_context(found.name, [*rest], parent=group) if hasattr(found, "commands") else group
            found.make_context(found.name, [*rest], parent=group)
            assert words[at : len(words) - len(rest)] == name.split()


def test_the_names_of_other_programs_work_and_are_not_listed(capfd: pytest.CaptureFixture[str]) -> None:
    for alias, option in (("worker", "--spawn"), ("ps", "--watch"), ("ls", "--watch")):
        assert run(["-h"]) == 0
        assert f" {alias} " not in capfd.readouterr().out
        assert run([alias, "-h"]) == 0
        assert option in capfd.readouterr().out


def test_an_error_holds_nothing_that_a_terminal_obeys(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["certs", "export", "x\x1b]0;t\x07\x9b6n\u202e"]) == 64
    told = capfd.readouterr().err
    assert "the keys of 'x\\x1b]0;t\\x07\\x9b6n\\u202e' are not here" in told
    assert not [char for char in told if not char.isprintable() and char != "\n"]


class NoTyping(io.StringIO):
    """A terminal at which Ctrl-D is pressed."""

    def isatty(self) -> bool:
        return True


class Closed(io.StringIO):
    """A stdin that was closed."""

    @property
    def buffer(self) -> io.StringIO:
        return self

    def read(self, _size: int | None = -1, /) -> str:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


@pytest.mark.parametrize("stdin", [Closed(), NoTyping()], ids=["closed", "Ctrl-D"])
def test_a_secret_that_is_not_given_is_told(
    stdin: io.StringIO, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def nothing(_: str) -> str:
        raise EOFError

    assert run(["certs", "queue-key", "default"]) == 0
    capfd.readouterr()
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(getpass, "getpass", nothing)
    assert run(["secret", "set", "DEPLOY"]) == 64
    told = capfd.readouterr().err
    assert told.endswith("airunner: the value of DEPLOY is empty: give it on stdin, or with --from-file FILE\n")
    assert "Abort" not in told


def test_help_imports_nothing_that_it_does_not_need() -> None:
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "airunner", "submit", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    ).stderr
    imported = {line.rpartition("|")[2].strip() for line in shown.splitlines()}
    assert not imported & {"anyio", "zmq", "rich", "yaml", "apsw", "jwt", "nacl", "cryptography", "asyncio"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["export", "j", "-o", ""], "--output is empty: expected the path of a file or folder"),
        (["run", "--output=", "--", "true"], "--output is empty: expected the path of a file or folder"),
        (["run", "-o", "-"], "--output: expected a file, not stdin or stdout; a file of the name - is ./-"),
        (["backup", "-"], "TO: expected a file, not stdin or stdout; a file of the name - is ./-"),
        (["agent", "--hooks", ""], "--hooks is empty: expected the path of a file or folder"),
        (["certs", "import", ""], "FILE is empty: expected the path of a file or folder"),
        (["certs", "doctor", "--token", "a.b.c", "--token-file", "f"], "use --token or --token-file, not both"),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_meant_is_told(words: list[str], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 64
    assert capfd.readouterr().err == f"airunner: {told}\n"


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_the_help_has_each_command_with_its_whole_line_at_every_width(
    columns: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert [run(words) for words in ([], ["-h"], ["help"])] == [0, 0, 0]
    text = capfd.readouterr().out
    assert all(len(line) <= max(columns, WIDTH_MIN) for line in text.splitlines())
    for name, entry in TABLE.items():
        assert f"{name} {entry.line} " in f"{' '.join(text.split())} " or not entry.line
