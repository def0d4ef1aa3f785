"""Several jobs shown together, each line with the name of its job."""

from __future__ import annotations

import pytest

from airunner.client.cli.kinds import KINDS, Choice
from airunner.client.cli.prefixes import Prefixed, labels_of
from airunner.client.cli.printing import ConsolePrinter
from airunner.protocol import events
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Job, JobState, Reason
from airunner.protocol.names import JobId
from tests.client.cli.test_output import ERR, OUT, Files, Terminal, event, one_terminal, two_files  # noqa: F401 - fixtures

ENDED = event(events.JobFinished(timestamp_ms=5_000, state=JobState.FAILED, exit_code=3, reason=Reason.EXIT_CODE))


def test_a_job_is_called_by_its_name_or_id_and_by_both_if_others_have_the_name() -> None:
    named = [("aaaaaaaa1", "build"), ("bbbbbbbb1", ""), ("cccccccc1", "test"), ("cccccccc2", "test"), ("d", "n" * 30)]
    jobs = [
        Job(id=JobId(job_id), spec=JobSpec(command="true", name=name), state=JobState.RUNNING, submitted_ms=0)
        for job_id, name in named
    ]
    labels = [label.rstrip() for label in labels_of(jobs)]
    assert labels == ["build", "bbbbbbbb1", "test cccccccc1", "test cccccccc2", f"{'n' * 23}…"]
    assert {len(label) for label in labels_of(jobs)} == {24}


def test_a_line_is_printed_whole_behind_its_jobs_name_and_in_a_pipe_byte_for_byte(files: Files) -> None:
    console = files.console()
    one, other = Prefixed(console, "one", 0), Prefixed(console, "two", 1)
    for shown, stream, data in (
        (one, OUT, b"a\x1b[31m\xff"),
        (other, OUT, b"10%\r20%\n\nb"),
        (one, ERR, b"e\n"),
        (one, OUT, b"c\nd"),
    ):
        shown.job_output(stream, data)
    ConsolePrinter(other).show([ENDED])
    ConsolePrinter(one).show([ENDED])
    out = b"two | 10%\r20%\ntwo | \none | a\x1b[31m\xffc\ntwo | b\none | d\n"
    said = b"".join(b"%b | airunner: FAILED, exit code 3\n" % name for name in (b"two", b"one"))
    assert files.written == (out, b"one | e\n" + said)


@pytest.mark.parametrize("coloured", [True, False])
def test_a_terminal_gets_coloured_names_and_lines_as_they_look_in_the_end(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, *, coloured: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "" if coloured else "1")
    shown = Prefixed(terminal.console, "one", 0)
    shown.job_output(OUT, b"10%\r\x1b[31m20%\r\n")
    shown.must_say("over")
    name = b"\x1b[36mone | \x1b[0m" if coloured else b"one | "
    assert terminal.shown().replace(b"\n\x1b[0m", b"\n") == b"%b\x1b[31m20%%\x1b[0m\n%bairunner: over\n" % (name, name)


def test_lifecycle_is_printed_on_stdout_with_how_the_command_ended(files: Files) -> None:
    ends = [
        events.ProcessEnd(timestamp_ms=4_000, pid=1, exit_code=3, duration_ms=1_000),
        events.ProcessEnd(timestamp_ms=4_000, pid=1, signal=9, duration_ms=1_000),
        events.Heartbeat(timestamp_ms=0),
        events.Output(timestamp_ms=0, stream=OUT, data=b"output"),
    ]
    ConsolePrinter(files.console(), KINDS[Choice.LIFECYCLE]).show([*map(event, ends), ENDED])
    lines = b"command ended with exit code 3 after 1.0 s\ncommand ended by signal 9 after 1.0 s\nFAILED, exit code 3\n"
    assert files.written == (lines, b"")
