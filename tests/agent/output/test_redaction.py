"""Nothing of a job's secrets reaches the spool, whatever carries it."""

from __future__ import annotations

from pathlib import Path

import pytest

from airunner.agent.attempt.jobsecrets import JobSecrets, kept_out
from airunner.agent.output.redactor import Redactor
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
from airunner.protocol.redaction import SECRET_NAMES, is_secret_name, without_secrets
from tests.agent.output.recording import recorder_in, taken

SECRET = "hunter2hunter2"
pytestmark = pytest.mark.anyio


def spooled(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_no_event_carries_a_secret_to_the_disk(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    recorder.redact(Redactor([SECRET]))
    said = f"see {SECRET}, or https://x/?{SECRET}"
    recorder.add(GitCloneStart(timestamp_ms=1, repository=said, commit=SECRET, branch=SECRET))
    recorder.add(GitCloneProgress(timestamp_ms=1, message=said))
    recorder.add(GitCloneError(timestamp_ms=1, message=said))
    recorder.add(ProcessStart(timestamp_ms=1, pid=1, started_at=1))
    recorder.add(ProcessError(timestamp_ms=1, message=said))
    for piece in (b"pass: hun", b"ter2hu", b"nter2\n"):
        await recorder.add_output(Stream.STDOUT, piece, 1)
        await recorder.add_output(Stream.STDERR, piece, 1)
    recorder.end_output(1)
    bodies = taken(recorder)
    assert SECRET.encode() not in spooled(tmp_path)
    assert spooled(tmp_path).count(b"[REDACTED]") == 3 + 4 * 1 + 2 + 2 + 1
    for stream in Stream:
        written = b"".join(body.data for body in bodies if isinstance(body, Output) and body.stream is stream)
        assert written == b"pass: [REDACTED]\n"


async def test_streams_are_cut_apart_and_the_end_gives_what_waited(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    recorder.redact(Redactor([SECRET]))
    await recorder.add_output(Stream.STDOUT, b"hunter2", 1)
    await recorder.add_output(Stream.STDERR, b"hunter2", 1)
    assert taken(recorder) == []
    recorder.end_output(5)
    assert taken(recorder) == [
        Output(timestamp_ms=5, stream=Stream.STDOUT, data=b"hunter2"),
        Output(timestamp_ms=5, stream=Stream.STDERR, data=b"hunter2"),
    ]


async def test_what_grows_by_its_marks_still_fits_every_bound(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    recorder.redact(Redactor(["x"]))
    await recorder.add_output(Stream.STDOUT, b"x" * OUTPUT_BYTES_MAX, 1)
    recorder.add(ProcessError(timestamp_ms=1, message="x" * 16_384))
    *outputs, said = taken(recorder)
    assert b"".join(body.data for body in outputs if isinstance(body, Output)) == b"[REDACTED]" * OUTPUT_BYTES_MAX
    assert isinstance(said, ProcessError)
    assert len(said.message) == 16_384


def test_names_tell_what_is_secret_and_the_job_names_more() -> None:
    environment = {"DEPLOY_TOKEN": "abcdef", "Api_Key": "true", "login": "x", "KEYBOARD": "qwertz", "MY_PIN": "123456"}
    named = JobSpec(command="true", environment=environment, secrets=("login",))
    assert kept_out(named, JobSecrets({"login": "x"}, {"FILE": b"in it"})) == ["x", "in it", "abcdef"]
    unnamed = JobSpec(command="true", environment=environment)
    assert kept_out(unnamed, JobSecrets(), (*SECRET_NAMES, "*_pin")) == ["abcdef", "123456"]


@pytest.mark.parametrize(
    "name", ["A_TOKEN", "A_SECRET", "A_PASSWORD", "A_KEY", "TOKEN", "SECRET", "password", "PGPASSWORD"]
)
def test_usual_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)
    assert without_secrets({name: "x", "PATH": "/bin"}, ()) == {name: "[REDACTED]", "PATH": "/bin"}
