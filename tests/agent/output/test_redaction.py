"""Nothing of a job's secrets reaches the spool, whatever carries it: cut anywhere, encoded, or overlapped."""

from __future__ import annotations

import base64
import doctest
import secrets
from pathlib import Path

import pytest

from airunner.agent.attempt.jobsecrets import JobSecrets, values_to_redact
from airunner.agent.output import escapes
from airunner.agent.output import redactor as redactor_module
from airunner.agent.output.patterns import patterns_of
from airunner.agent.output.redactor import Redactor, TooManySecrets
from airunner.protocol.events import (
    OUTPUT_BYTES_MAX,
    GitCloneError,
    GitCloneProgress,
    GitCloneStart,
    Output,
    ProcessError,
    ProcessStart,
    Stream,
)
from airunner.protocol.fields import JobSpec
from tests.agent.output.recording import recorder_in, taken
from tests.counting import counted_calls

SECRET = "hunter2correct"


def spooled(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_no_event_carries_a_secret_to_the_disk(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    recorder.redact_with(Redactor([SECRET]))
    said = f"see {SECRET}, or https://x/?{SECRET}"
    recorder.add(GitCloneStart(timestamp_ms=1, repository=said, commit=SECRET, branch=SECRET))
    recorder.add(GitCloneProgress(timestamp_ms=1, message=said))
    recorder.add(GitCloneError(timestamp_ms=1, message=said))
    recorder.add(ProcessStart(timestamp_ms=1, pid=1, started_at=1))
    recorder.add(ProcessError(timestamp_ms=1, message=said))
    for piece in (b"pass: hun", b"ter2co", b"rrect\n", b"hunter2"):
        await recorder.add_output(Stream.STDOUT, piece, 1)
        await recorder.add_output(Stream.STDERR, piece, 1)
    recorder.end_output(1)
    bodies = taken(recorder)
    assert SECRET.encode() not in spooled(tmp_path)
    assert spooled(tmp_path).count(b"[REDACTED]") == 3 + 4 * 1 + 2 + 2 + 1
    for stream in Stream:
        written = b"".join(body.data for body in bodies if isinstance(body, Output) and body.stream is stream)
        assert written == b"pass: [REDACTED]\nhunter2", "what was held back comes with the end"


async def test_what_grows_by_its_marks_still_fits_every_bound(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    recorder.redact_with(Redactor(["x"]))
    await recorder.add_output(Stream.STDOUT, b"x" * OUTPUT_BYTES_MAX, 1)
    recorder.add(ProcessError(timestamp_ms=1, message="x" * 16_384))
    *outputs, said = taken(recorder)
    assert b"".join(body.data for body in outputs if isinstance(body, Output)) == b"[REDACTED]" * OUTPUT_BYTES_MAX
    assert isinstance(said, ProcessError)
    assert len(said.message) == 16_384


def test_the_secrets_of_a_job_and_of_its_operator_are_redacted() -> None:
    environment = {
        "DEPLOY_TOKEN": "abcdef",
        "Api_Key": "true",
        "login": "hush",
        "KEYBOARD": "qwertz",
        "MY_PIN": "123456",
    }
    named = JobSpec(
        command="curl",
        args=("https://u:hunter2@host/",),
        repository="https://u:hunter3@host/",
        environment=environment,
        secrets=("login",),
        no_redact=("DEPLOY_TOKEN", "MY_PIN"),
    )
    secrets = JobSecrets({"login": "hush"}, {"FILE": b"in it"})
    operators = {"DEPLOY_TOKEN": "operator's", "HTTPS_PROXY": "http://u:hunter4@proxy:1", "MODE": "fast"}
    found = values_to_redact(named, secrets, operators, ("*_pin",))
    assert sorted(found.hidden) == ["123456", "hunter2", "hunter3", "hunter4", "hush", "in it", "operator's"]
    assert found.shown == ("Api_Key",)


MARK = b"[REDACTED]"
TOKEN = "s3cr3t/T0ken+with?odd=chars"
PEM = "-----BEGIN KEY-----\n" + "\n".join(base64.b64encode(bytes([n]) * 48).decode() for n in range(9)) + "\n-----END\n"


def redacted(redactor: Redactor, text: bytes, sizes: list[int]) -> list[bytes]:
    """What comes out of it when `text` comes in pieces of these sizes, over and over; the last is what was held."""
    stream = redactor.stream()
    passed: list[bytes] = []
    at = turn = 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        passed.append(stream.feed(text[at : at + size]))
        at += size
        turn += 1
    return [*passed, stream.finish()]


def test_a_line_that_ends_as_an_encoding_begins_goes_on_with_its_end() -> None:
    redactor = Redactor([TOKEN])
    for letter in {chr(pattern[0]) for pattern in patterns_of([TOKEN], 1_000).folds}:
        assert redactor.stream().feed(f"step {letter}\n".encode()).endswith(b"\n")


def test_what_is_spread_over_more_than_white_space_of_its_own_length_is_not_waited_for() -> None:
    stream = Redactor([TOKEN]).stream()
    begun = base64.b64encode(TOKEN.encode())[:12]
    assert stream.feed(begun + b"\n") == b""
    assert stream.feed(b" " * 1_000) == begun + b"\n" + b" " * 1_000


@pytest.mark.parametrize(
    "text",
    ["$ ", "Password: ", "Continue? [y/N] ", "[####] 10 %\r", "a && b\n", "\\ \n", "\x1b[0m", "%" * 5_000 + "\n"],
)
def test_what_begins_no_secret_is_not_waited_for(text: str) -> None:
    assert Redactor([TOKEN, PEM]).stream().feed(text.encode()) == text.encode()


def test_a_beginning_of_a_secret_before_white_space_is_not_waited_for_and_the_rest_is_covered() -> None:
    for shown in (1, 2, 3):
        stream = Redactor([TOKEN]).stream()
        assert stream.feed(f"step {TOKEN[:shown]}\n".encode()) == f"step {TOKEN[:shown]}\n".encode()
        assert stream.feed(f"{TOKEN[shown:]}\n".encode()) == b"[REDACTED]\n"


@pytest.mark.parametrize("secret", ["abcde", "a b c", "x=1"])
def test_a_value_under_six_bytes_is_a_pattern_only_as_it_is(secret: str) -> None:
    patterns = patterns_of([secret], 1_000)
    assert (patterns.literal, patterns.folds) == ({secret.encode()}, {})


def test_pieces_under_six_bytes_of_a_secret_stay_readable() -> None:
    assert Redactor(["{\n  id: 7\n  type: robot\n}\n"]).text("id: 7, {} type: robot") == "id: 7, {} [REDACTED]"


def test_one_line_of_a_key_alone_is_covered_too() -> None:
    line = PEM.splitlines()[4]
    assert Redactor([PEM]).text(f"> {line} <") == "> [REDACTED] <"


def test_without_secrets_a_piece_is_the_same_object() -> None:
    piece = b"x" * 100
    assert Redactor().stream().feed(piece) is piece


def test_a_secret_longer_than_any_buffer_is_covered_from_end_to_end() -> None:
    secret = secrets.token_hex(10_000)
    out = b"".join(redacted(Redactor([secret]), b"<" + secret.encode() + b">", [4_096]))
    assert out.replace(MARK, b"") == b"<>"


def test_a_short_secret_is_taken_literally_only() -> None:
    assert Redactor(["ab"]).text("ab YWI= abc") == "[REDACTED] YWI= [REDACTED]c"


def test_the_colours_around_a_secret_stay() -> None:
    assert Redactor([TOKEN]).text(f"\x1b[31m{TOKEN}\x1b[0m.") == "\x1b[31m[REDACTED]\x1b[0m."


def test_a_message_keeps_the_bytes_that_are_no_text() -> None:
    assert Redactor([TOKEN]).text(f"\udcff {TOKEN}") == "\udcff [REDACTED]"


def test_a_secret_that_a_message_was_cut_in_leaves_no_beginning() -> None:
    message = f"  12 curl {TOKEN[:-3]}\n  13 sh -c s3c\n  14 {TOKEN} {TOKEN[:9]}"
    assert Redactor([TOKEN]).text(message) == "  12 curl [REDACTED]\n  13 sh -c s3c\n  14 [REDACTED] [REDACTED]"


def test_more_than_can_be_looked_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redactor_module, "PATTERNS_MAX", 3)
    with pytest.raises(TooManySecrets):
        Redactor([TOKEN])


@pytest.mark.parametrize(
    "line", [b'{"a": "b%%20c\\n", "n": %d}\n', b"%d%% 50 files & more\n", b"\x1b[32mdone\x1b[0m %d\n"]
)
def test_a_search_runs_no_code_for_each_line(line: bytes) -> None:
    stream = Redactor([PEM]).stream()
    piece = b"".join(line % number for number in range(4_000))[:OUTPUT_BYTES_MAX]
    with counted_calls() as calls:
        logged = [stream.feed(piece), stream.finish()]
    assert b"".join(logged) == piece
    assert calls.total() <= 1_000, "of 64 KiB with up to 4,000 escapes"


def test_the_worked_example_of_readings_holds() -> None:
    assert doctest.testmod(escapes) == (0, 5)
