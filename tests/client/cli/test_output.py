"""How events and jobs are shown."""

from __future__ import annotations

import os
import socket
import tty
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, cast

import msgspec
import pytest

from airunner.client.cli.commands import follow_job
from airunner.client.cli.console import Console
from airunner.client.cli.printing import ConsolePrinter, JsonPrinter
from airunner.client.cli.standardstreams import OutputLost, ReaderGone
from airunner.client.cli.terminal import RESET
from airunner.client.cli.watching import exit_status
from airunner.client.cli.wording import duration_text, end_text, instant_text
from airunner.client.client import Client
from airunner.protocol import events
from airunner.protocol.events import Event, EventBody, Output, Stream
from airunner.protocol.job import JobState, JobSummary, Reason, Result
from airunner.protocol.names import JobId


class Files:
    """stdout and stderr as two files."""

    def __init__(self, folder: Path) -> None:
        self._paths = (folder / "out", folder / "err")
        self.descriptors = [os.open(path, os.O_CREAT | os.O_WRONLY, 0o600) for path in self._paths]

    def console(self, *, quiet: bool = False) -> Console:
        return Console(quiet=quiet, stdout=self.descriptors[0], stderr=self.descriptors[1])

    @property
    def written(self) -> tuple[bytes, bytes]:
        return self._paths[0].read_bytes(), self._paths[1].read_bytes()


@pytest.fixture(name="files")
def two_files(tmp_path: Path):
    made = Files(tmp_path)
    yield made
    for descriptor in made.descriptors:
        os.close(descriptor)


def event(body: EventBody, sequence: int = 1, attempt: int = 1) -> Event:
    return Event(job_id=JobId("j"), sequence=sequence, attempt=attempt, body=body)


def test_the_console_is_passed_on_byte_for_byte(files: Files) -> None:
    printer = ConsolePrinter(files.console(quiet=True))
    for stream, data in ((Stream.STDOUT, b"\xff\0out"), (Stream.STDERR, b"err\n"), (Stream.STDOUT, b"\r\n")):
        printer.show([event(Output(timestamp_ms=0, stream=stream, data=data))])
    assert files.written == (b"\xff\0out\r\n", b"err\n")


def test_adjacent_output_of_a_stream_is_one_write() -> None:
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # each write is a packet
    with reader, writer:
        pieces = ((Stream.STDOUT, b"1"), (Stream.STDOUT, b"2"), (Stream.STDERR, b"3"), (Stream.STDOUT, b"4"))
        batch = [event(Output(timestamp_ms=0, stream=stream, data=data)) for stream, data in pieces]
        ConsolePrinter(Console(stdout=writer.fileno(), stderr=writer.fileno())).show(batch)
        writer.close()
        assert list(iter(lambda: reader.recv(10), b"")) == [b"12", b"3", b"4"]


PROGRESS: list[EventBody] = [
    events.JobScheduled(timestamp_ms=0, queue="q"),
    events.JobLeased(timestamp_ms=0, agent="a1"),
    events.GitCloneStart(timestamp_ms=0, repository="r", commit="", branch=""),
    events.GitCloneProgress(timestamp_ms=0, message="trying again (2 of 4)"),
    events.GitCloneEnd(timestamp_ms=0, commit="c" * 40, duration_ms=1),
    events.ProcessStart(timestamp_ms=0, pid=1, started_at=0),
    events.JobFinished(timestamp_ms=0, state=JobState.COMPLETED, exit_code=0),
    events.JobFinished(timestamp_ms=0, state=JobState.FAILED, exit_code=3, reason=Reason.EXIT_CODE),
]
REASONS: list[EventBody] = [
    events.JobScheduled(timestamp_ms=0, queue="q", retry=1),
    events.JobReleased(timestamp_ms=0),
    events.JobExpired(timestamp_ms=0),
    events.GitCloneError(timestamp_ms=0, message="no such branch"),
    events.ProcessError(timestamp_ms=0, message="the secret is too short to be redacted"),
    events.OutputTruncated(timestamp_ms=0, omitted_bytes=1),
    *(
        events.JobFinished(timestamp_ms=0, state=JobState.FAILED, reason=reason)
        for reason in Reason
        if reason is not Reason.EXIT_CODE
    ),
]


@pytest.mark.parametrize(
    ("body", "is_shown"), [(body, False) for body in PROGRESS] + [(body, True) for body in REASONS], ids=str
)
def test_quiet_hides_progress_and_neither_a_warning_nor_the_reason_of_a_failure(
    files: Files, body: EventBody, *, is_shown: bool
) -> None:
    ConsolePrinter(files.console(quiet=True)).show([event(body)])
    assert bool(files.written[1]) is is_shown
    ConsolePrinter(files.console()).show([event(body)])
    assert files.written[1], "an event of which nothing is said is neither"


def test_what_git_counts_is_for_the_status_line(files: Files) -> None:
    counted = event(events.GitCloneProgress(timestamp_ms=0, message="Receiving objects: 100% (3/3), done."))
    ConsolePrinter(files.console()).show([counted])
    assert files.written == (b"", b"")
    ConsolePrinter(files.console(), ("GIT_CLONE_PROGRESS",)).show([counted])
    assert files.written[0]


OUT, ERR = Stream.STDOUT, Stream.STDERR


@pytest.mark.parametrize(
    ("apart", "pieces", "out", "err"),
    [
        (False, [(OUT, b"half")], b"half\nairunner: over\nend\n", b""),
        (False, [(OUT, b"whole\n")], b"whole\nairunner: over\nend\n", b""),
        (False, [(ERR, b"half"), (OUT, b"more")], b"halfmore\nairunner: over\nend\n", b""),
        (False, [(OUT, b"half"), (ERR, b"\n")], b"half\nairunner: over\nend\n", b""),
        (False, [], b"airunner: over\nend\n", b""),
        (True, [(OUT, b"half")], b"half" + b"end\n", b"airunner: over\n"),
        (True, [(OUT, b"half"), (ERR, b"half")], b"half" + b"end\n", b"half\nairunner: over\n"),
    ],
)
def test_a_message_begins_a_line_and_adds_no_byte_to_a_stdout_of_its_own(
    tmp_path: Path, pieces: list[tuple[Stream, bytes]], out: bytes, err: bytes, *, apart: bool
) -> None:
    """As with `>log 2>&1`, where both are one file, and with `>out 2>err`."""
    paths = tmp_path / "out", tmp_path / "err"
    with paths[0].open("wb", buffering=0) as stdout, paths[1].open("wb", buffering=0) as stderr:
        both = stdout.fileno(), stderr.fileno() if apart else os.dup(stdout.fileno())
        console = Console(stdout=both[0], stderr=both[1])
        for stream, data in pieces:
            console.job_output(stream, data)
        console.must_say("over")
        console.out_line("end")
        if not apart:
            os.close(both[1])
    assert (paths[0].read_bytes(), paths[1].read_bytes()) == (out, err)


class Terminal:
    """stdout and stderr as one terminal."""

    def __init__(self) -> None:
        self.ours, self._screen = os.openpty()
        tty.setraw(self._screen)
        self.console = Console(stdout=self._screen, stderr=self._screen)

    def shown(self) -> bytes:
        """What it was given since the last time."""
        os.write(self._screen, b"\0")
        seen = b""
        while not seen.endswith(b"\0"):
            seen += os.read(self.ours, 65_536)
        return seen[:-1]

    def close(self) -> None:
        os.close(self.ours)
        os.close(self._screen)


@pytest.fixture(name="terminal")
def one_terminal():
    made = Terminal()
    yield made
    made.close()


def output(data: bytes, sequence: int = 1) -> Event:
    return event(Output(timestamp_ms=0, stream=Stream.STDOUT, data=data), sequence)


AGAIN = [events.JobLeased(timestamp_ms=0, agent="a1"), events.JobReleased(timestamp_ms=0)]


@pytest.mark.parametrize("again", [*AGAIN, events.JobExpired(timestamp_ms=0)], ids=lambda body: type(body).__name__)
def test_neither_colour_nor_a_string_without_end_goes_over_to_the_next_attempt(
    terminal: Terminal, again: EventBody
) -> None:
    printer = ConsolePrinter(terminal.console)
    printer.show([output(b"\x1b[31;8mx\x1b]0;")])
    assert terminal.shown() == b"\x1b[31;8mx"
    printer.show([event(again)])
    assert terminal.shown().startswith(RESET + b"\nairunner: ")
    printer.show([output(b"first line\n")])
    assert terminal.shown() == b"first line\n"


def test_what_airunner_says_is_not_in_a_jobs_colours_and_holds_no_control_of_others(terminal: Terminal) -> None:
    terminal.console.job_output(Stream.STDOUT, b"\x1b[8mhidden\n")
    terminal.shown()
    terminal.console.must_say("no job \x9b6n\x1b[2Jy")
    terminal.console.say("no job \x1b]52;c;QQ==\x07x")
    told = terminal.shown()
    assert told.startswith(RESET)
    assert told.removeprefix(RESET).splitlines() == [
        rb"airunner: no job \x9b6n\x1b[2Jy",
        rb"airunner: no job \x1b]52;c;QQ==\x07x",
    ]


class Interrupted(Exception):
    """As Ctrl-C is."""


class Interrupting:
    """Client and events of a job whose watching is interrupted."""

    job_ended = False

    def follow(self, *_: object) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def next_batch(self) -> list[Event]:
        if self.job_ended:
            raise Interrupted
        self.job_ended = True
        return [output(b"\x1b[31;8mx")]


async def test_no_colour_outlives_the_watching_however_it_ends(terminal: Terminal) -> None:
    with pytest.raises(Interrupted):
        await follow_job(cast("Client", Interrupting()), "j", terminal.console, json=False)
    assert terminal.shown().endswith(b"\x1b[31;8mx" + RESET)


def test_airunners_own_words_go_to_stderr(files: Files) -> None:
    printer = ConsolePrinter(files.console())
    for body in (
        events.JobScheduled(timestamp_ms=0, queue="default"),
        events.JobLeased(timestamp_ms=0, agent="a1"),
        events.GitCloneError(timestamp_ms=0, message="fatal: no\n"),
        events.ProcessStart(timestamp_ms=0, pid=7, started_at=1_000),
        events.ProcessError(timestamp_ms=0, message="x: command not found"),
        events.OutputTruncated(timestamp_ms=0, omitted_bytes=9),
        events.Heartbeat(timestamp_ms=0),
        events.JobFinished(timestamp_ms=2_500, state=JobState.FAILED, exit_code=7, reason=Reason.EXIT_CODE),
    ):
        printer.show([event(body)])
    out, err = files.written
    assert out == b""
    assert err.decode().splitlines() == [
        "airunner: waiting in queue default",
        "airunner: leased by a1",
        "airunner: checkout failed: fatal: no",
        "airunner: started, pid 7",
        "airunner: x: command not found",
        "airunner: 9 bytes of output were left out here",
        "airunner: FAILED, exit code 7 after 1.5 s",
    ]


def test_json_shows_bytes_as_text_where_they_are_text(files: Files) -> None:
    printer = JsonPrinter(files.console())
    for data in ("grün\n".encode(), b"\xff"):
        printer.show([event(Output(timestamp_ms=5, stream=Stream.STDOUT, data=data))])
    text, raw = (msgspec.json.decode(line) for line in files.written[0].splitlines())
    known = {"job_id": "j", "sequence": 1, "attempt": 1, "kind": "OUTPUT", "timestamp_ms": 5, "stream": "stdout"}
    assert text == known | {"data": "grün\n", "encoding": "utf-8"}
    assert (raw["data"], raw["encoding"]) == ("/w==", "base64")


def test_json_holds_nothing_that_a_terminal_obeys_and_means_the_same(files: Files) -> None:
    attack = "a\x1b]0;x\x07\x7f\x9d52;c;QQ==\x9c\u202eb\u2066\u2028ü"
    JsonPrinter(files.console()).show([event(Output(timestamp_ms=5, stream=Stream.STDOUT, data=attack.encode()))])
    files.console().out_json(
        JobSummary(id=JobId("j"), state=JobState.SCHEDULED, queue="q", submitted_ms=0, command=attack)
    )
    first, second = files.written[0].splitlines()
    for line in (first, second):
        assert not [char for char in line.decode() if not char.isprintable()]
        assert "ü" in line.decode()
    assert msgspec.json.decode(first)["data"] == msgspec.json.decode(second)["command"] == attack


@pytest.mark.parametrize(
    ("path", "mode", "code", "said"),
    [
        ("/dev/full", os.O_WRONLY, 74, b"No space left on device; the rest of it is left out\n"),
        (os.devnull, os.O_RDONLY, 0, b""),  # so a closed stdout is opened
    ],
)
def test_the_exit_code_of_a_followed_job_outlives_its_output(
    path: str, mode: int, code: int, said: bytes, files: Files
) -> None:
    console = Console(stdout=os.open(path, mode), stderr=files.descriptors[1])
    with pytest.raises(OutputLost):
        console.out_line("a result")
    console.follow()
    for stream in (Stream.STDOUT, Stream.STDERR, Stream.STDOUT):
        console.job_output(stream, b"shown\n")
    assert console.exit_code == code
    assert files.written == (b"", (b"airunner: cannot write the output: " if code else b"") + said + b"shown\n")


def test_a_message_that_cannot_be_written_is_left_out(files: Files) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    console = Console(stdout=files.descriptors[0], stderr=full)
    console.must_say("a message")
    console.follow()
    console.job_output(Stream.STDERR, b"lost")
    console.job_output(Stream.STDOUT, b"shown")
    assert (console.exit_code, files.written[0]) == (0, b"shown")


def test_a_pipe_that_another_process_made_non_blocking_gets_every_byte() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.set_blocking(reader, True)
    text = os.urandom(1_000_000)
    with ThreadPoolExecutor() as threads:
        written = threads.submit(Console(stdout=writer).out, text)
        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read(len(text)) == text
        written.result()
    os.close(writer)


def test_a_reader_that_is_gone_is_no_error_of_ours() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(ReaderGone):
        Console(stdout=writer).out(b"x")
    os.close(writer)


COMPLETED, FAILED, CANCELLED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED


@pytest.mark.parametrize(
    ("state", "exit_code", "signal", "reason", "words"),
    [
        (COMPLETED, 0, None, None, "COMPLETED, exit code 0"),
        (FAILED, None, 9, Reason.SIGNAL, "FAILED by signal 9"),
        (FAILED, None, 15, Reason.TIMEOUT, "FAILED by signal 15 (timeout)"),
        (FAILED, 127, None, Reason.COMMAND_NOT_FOUND, "FAILED, exit code 127 (command-not-found)"),
        (FAILED, None, None, Reason.AGENT_LOST, "FAILED (agent-lost)"),
        (FAILED, 0, None, Reason.PROCESS_ERROR, "FAILED, exit code 0 (process-error)"),
        (CANCELLED, None, None, None, "CANCELLED"),
    ],
)
def test_the_end_is_told_with_its_cause_and_submit_exits_as_the_job_did_and_never_0_unless_it_completed(
    state: JobState, exit_code: int | None, signal: int | None, reason: Reason | None, words: str
) -> None:
    finished = events.JobFinished(timestamp_ms=0, state=state, exit_code=exit_code, signal=signal, reason=reason)
    assert end_text(state, exit_code, signal, reason) == words
    assert exit_status(finished) == Result(exit_code=exit_code, signal=signal, reason=reason).exit_status
    assert (exit_status(finished) == 0) == (state is COMPLETED)


def test_lengths_of_time_are_readable_instants_are_rfc_3339_and_absurd_ones_are_still_shown() -> None:
    lengths_ms = (-5, 999, 4_250, 59_999, 187_000, 7_500_000, 273_600_000)
    assert ", ".join(map(duration_text, lengths_ms)) == "0 ms, 999 ms, 4.2 s, 59.9 s, 3 min 07 s, 2 h 05 min, 3 d 04 h"
    assert instant_text(1_700_000_000_123) == "2023-11-14T22:13:20Z"
    assert instant_text(2**53 - 1) == f"{2**53 - 1} ms"
