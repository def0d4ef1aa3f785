"""Files that an export or a recording is written to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from airunner.client.cli.console import Console
from airunner.client.cli.export import recording, sink
from airunner.protocol import events
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import Event
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.names import JobId


@pytest.fixture(name="file")
def an_older_export(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_text("older")
    file.chmod(0o640)
    return file


def export(path: Path, *pieces: bytes) -> None:
    with sink(path, lambda _: None) as put:
        for piece in pieces:
            put(piece)


def test_an_export_replaces_a_file_and_leaves_its_mode(file: Path) -> None:
    export(file, b"new", b"er")
    assert (file.read_text(), file.stat().st_mode & 0o777, list(file.parent.iterdir())) == ("newer", 0o640, [file])


def test_an_export_that_does_not_end_leaves_the_file(file: Path) -> None:
    with pytest.raises(TypeError):
        export(file, b"half", cast("bytes", "an error"))
    assert (file.read_text(), list(file.parent.iterdir())) == ("older", [file])


def test_a_link_stays_a_link_and_a_device_a_device(file: Path) -> None:
    link, other = file.with_name("link"), file.with_name("other")
    link.symlink_to(file)
    os.link(file, other)
    for written, content in ((link, b"1"), (other, b"2")):
        export(written, content)
        assert file.read_bytes() == content
    assert link.is_symlink()
    with pytest.raises(OperatorError, match="cannot write /dev/full: No space left on device"):
        export(Path("/dev/full"), b"more")


def test_a_recording_that_cannot_be_written_ends_and_the_job_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    console = Console()
    with recording(Path("/dev/full"), JobSpec(command="true"), console) as record:
        assert record is not None
        body = events.JobFinished(timestamp_ms=0, state=JobState.FAILED, exit_code=1)
        for sequence in (1, 2):
            record(Event(job_id=JobId("j"), sequence=sequence, attempt=1, body=body))
    said = "airunner: cannot write /dev/full: No space left on device; the rest of it is left out\n"
    assert (console.exit_code, capfd.readouterr().err) == (74, said)
