"""The status line says how long a job runs and how old its last output is, and leaves no trace in what is written."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

import anyio
import pytest

from airunner.client.cli.console import CLEAR, DIM, PLAIN, RESTORE, SAVE, Console
from airunner.client.cli.printing import ConsolePrinter
from airunner.client.cli.status import Progress, WithStatus
from airunner.protocol import events
from airunner.protocol.events import Event, EventBody, Heartbeat, Output, ProcessStart, Stream
from airunner.protocol.job import JobState
from airunner.transport.ports import SYSTEM
from tests.client.cli.test_output import Terminal, event

CLEARED = f"{SAVE}{PLAIN}{CLEAR}{RESTORE}".encode()


def shown(text: str) -> bytes:
    return f"{SAVE}{DIM}{text}{PLAIN}{CLEAR}{RESTORE}".encode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    made = Terminal()
    resize(made, 80)
    yield made
    made.close()


def resize(terminal: Terminal, columns: int) -> None:
    fcntl.ioctl(terminal.ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def said(stamp_ms: int, text: bytes = b"hello\n") -> Output:
    return Output(timestamp_ms=stamp_ms, stream=Stream.STDOUT, data=text)


LIFE: list[tuple[EventBody, str]] = [
    (events.JobScheduled(timestamp_ms=5_000_000, queue="default"), "waiting 7 s"),
    (events.JobLeased(timestamp_ms=5_003_000, agent="a"), "starting 7 s on a"),
    (events.GitCloneStart(timestamp_ms=1_000, repository="r"), "checking out 7 s on a"),
    (
        events.GitCloneProgress(timestamp_ms=3_000, message="Receiving objects: 42% (420/1000)"),
        "checking out 9 s on a: Receiving objects: 42% (420/1000)",
    ),
    (ProcessStart(timestamp_ms=10_500, pid=7, started_at=10_000), "running 7 s on a, no output yet"),
    (said(30_000), "running 27 s on a, last output 7 s ago"),
    (Heartbeat(timestamp_ms=60_000), "running 57 s on a, last output 37 s ago"),
    (
        Heartbeat(timestamp_ms=90_000, processes=3, memory_bytes=12 << 20),
        "running 1 min 27 s on a, last output 1 min 07 s ago, 3 processes, 12.0 MiB",
    ),
    (events.ProcessEnd(timestamp_ms=91_000, pid=7, exit_code=0), "ending 7 s on a"),
    (events.JobFinished(timestamp_ms=5_091_000, state=JobState.COMPLETED, exit_code=0), ""),
]


def test_the_line_tells_what_the_job_does_by_differences_of_one_clock() -> None:
    progress = Progress()
    assert progress.text(0) == ""
    for at, (body, line) in enumerate(LIFE):
        progress.note(event(body), at * 100.0)
        assert progress.text(at * 100.0 + 7) == line


def test_a_cancel_which_has_another_clock_does_not_change_the_times() -> None:
    progress = Progress()
    progress.note(event(ProcessStart(timestamp_ms=10_000, pid=7, started_at=10_000)), 0)
    progress.note(event(events.JobCancelRequested(timestamp_ms=9_999_000)), 5)
    assert progress.text(7) == "running 7 s, no output yet"


def test_an_agent_that_is_not_heard_is_said_so() -> None:
    progress = Progress()
    progress.note(event(ProcessStart(timestamp_ms=0, pid=7, started_at=0)), 0)
    assert "not heard" not in progress.text(80), "one of before there were heartbeats"
    progress.note(event(Heartbeat(timestamp_ms=30_000)), 30)
    assert "not heard" not in progress.text(100)
    assert progress.text(110) == "running 1 min 50 s, no output yet, its agent not heard for 1 min 20 s"


def test_the_line_is_gone_before_anything_is_written(terminal: Terminal) -> None:
    console = terminal.console
    console.job_output(Stream.STDOUT, b"one\n")
    console.show_status("running 1 s")
    console.show_status("running 2 s")
    assert terminal.shown() == b"one\n" + shown("running 1 s") + shown("running 2 s")
    console.job_output(Stream.STDERR, b"two\n")
    assert terminal.shown() == CLEARED + b"two\n"
    console.show_status("running 3 s")
    console.say("a word")
    assert terminal.shown() == shown("running 3 s") + CLEARED + b"airunner: a word\n"
    console.show_status("running 4 s")
    console.job_over()
    console.job_over()
    assert terminal.shown() == shown("running 4 s") + CLEARED


def test_an_unfinished_line_of_the_jobs_is_left_alone(terminal: Terminal) -> None:
    terminal.console.job_output(Stream.STDOUT, b"password: ")
    terminal.console.show_status("running 1 s")
    assert terminal.shown() == b"password: "


@pytest.mark.parametrize(("columns", "line"), [(30, "running 1 min 20 s, no outpu…".encode()), (12, b""), (0, b"")])
def test_on_a_narrow_terminal_the_line_is_cut_or_left_out(terminal: Terminal, columns: int, line: bytes) -> None:
    resize(terminal, columns)
    terminal.console.show_status("running 1 min 20 s, no output yet, 3 processes")
    assert terminal.shown() == (shown(line.decode()) if line else b"")


def test_it_is_for_terminals_that_obey_and_for_who_wants_words(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, pipe = os.pipe()
    other, screen = os.openpty()
    try:
        assert terminal.console.has_status
        assert not Console(quiet=True, stdout=screen, stderr=screen).has_status
        assert not Console(raw=True, stdout=screen, stderr=screen).has_status
        assert not Console(stdout=pipe, stderr=screen).has_status, "a program may read stdout"
        assert not Console(stdout=screen, stderr=pipe).has_status
        for term in ("dumb", None):
            monkeypatch.delenv("TERM") if term is None else monkeypatch.setenv("TERM", term)
            assert not terminal.console.has_status
    finally:
        for descriptor in (reader, pipe, screen, other):
            os.close(descriptor)


class Slow:
    """Events that come so many seconds after the first is asked for."""

    def __init__(self, *events: tuple[float, EventBody]) -> None:
        self._events = list(events)
        self._began_s: float | None = None

    async def next_batch(self) -> list[Event]:
        if not self._events:
            return []
        self._began_s = anyio.current_time() if self._began_s is None else self._began_s
        await anyio.sleep_until(self._began_s + self._events[0][0])
        return [event(self._events.pop(0)[1])]


async def never() -> str:
    raise AssertionError("it runs")


async def test_heartbeats_show_in_the_line_and_never_in_the_console(terminal: Terminal) -> None:
    events = Slow(
        (0, ProcessStart(timestamp_ms=0, pid=7, started_at=0)),
        (0.5, said(500)),
        (0.6, Heartbeat(timestamp_ms=30_500, processes=1, memory_bytes=1 << 20)),
        (2.7, said(31_400)),
    )
    printer = ConsolePrinter(terminal.console)

    async for batch in WithStatus(events.next_batch, terminal.console, never, status=True, fresh=True):
        printer.show(batch)
    silent, beaten = "running {} s, last output {} s ago", ", 1 process, 1.0 MiB"
    begun = b"airunner: started, pid 7\n" + shown("running 0 s, no output yet") + CLEARED
    first = shown(silent.format(0, 0)) + b"".join(shown(silent.format(at, at) + beaten) for at in (30, 31, 32))
    assert terminal.shown() == begun + b"hello\n" + first + CLEARED + b"hello\n" + shown(silent.format(31, 0) + beaten)


async def test_a_command_in_a_terminal_has_the_screen_for_itself(terminal: Terminal) -> None:
    began, opened = (
        ProcessStart(timestamp_ms=0, pid=7, started_at=0),
        events.TerminalResize(timestamp_ms=0, cols=9, rows=9),
    )
    ended = events.ProcessEnd(timestamp_ms=9_000, pid=7, exit_code=0)
    drawn = Slow((0, began), (0, opened), (3, said(3_000, b"\x1b[1mdrawn\r\n")), (9, ended))
    printer = ConsolePrinter(terminal.console)
    async for batch in WithStatus(drawn.next_batch, terminal.console, never, status=True, fresh=True):
        printer.show(batch)
    line = shown("running 0 s, no output yet") + CLEARED
    left = b"\x1b[1mdrawn\r\n" + b"\x1b[0m" + shown("ending 0 s")
    assert terminal.shown() == b"airunner: started, pid 7\n" + line + left


@pytest.mark.parametrize(
    ("fresh", "delay_ms", "line", "asked_s"),
    [(True, 0, "waiting {} s", 1), (False, 0, "waiting 1 min 0{} s", 1), (True, 1_500, "waiting {} s", 2.5)],
)
async def test_what_a_late_monitor_finds_in_the_log_is_as_old_as_this_machines_clock_says(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, *, fresh: bool, delay_ms: int, line: str, asked_s: float
) -> None:
    """And once it has waited for a second it asks why the job does not begin, and never again."""
    began_s = anyio.current_time()
    monkeypatch.setattr(type(SYSTEM), "wall_ms", lambda _: 60_000)
    asked: list[float] = []

    async def hint() -> None:
        asked.append(anyio.current_time())

    waiting = (0, events.JobScheduled(timestamp_ms=0, queue="default", not_before_ms=delay_ms or None))
    leased = (3.5, events.JobLeased(timestamp_ms=0, agent="a"))
    async for _ in WithStatus(Slow(waiting, leased).next_batch, terminal.console, hint, status=True, fresh=fresh):
        pass
    assert terminal.shown().startswith(b"".join(shown(line.format(at)) for at in (0, 1, 2)))
    assert len(asked) == 1
    assert asked[0] - began_s >= asked_s
