"""Transcript of a job: the rows that a terminal has shown of its output, out of its events. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from airunner.client.cli.styled import LineScreen, Row
from airunner.client.loglines import Line, LineSplitter
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import STREAMS, Event, JobFinished, JobLeased, Output, TerminalResize
from airunner.protocol.fields import JobSpec, ProcessType

NEEDS_PYTE = (
    "the output of a terminal is shown with pyte: run pip install 'airunner-jobs[export]', or use --format cast"
)


def transcript_of(spec: JobSpec) -> LineTranscript | TerminalTranscript:
    """Return the transcript of a job. Raises `OperatorError`: it needs a terminal emulator, which is not installed."""
    if spec.process_type is not ProcessType.PTY:
        return LineTranscript()
    try:
        return TerminalTranscript(spec.terminal.cols, spec.terminal.rows)
    except ImportError as error:
        raise OperatorError(NEEDS_PYTE) from error


class LineTranscript:
    """Transcript of a job with pipes: its lines of stdout and stderr, each as soon as it has ended."""

    def __init__(self) -> None:
        self._splitter = LineSplitter()
        self._screens = {stream: LineScreen() for stream in STREAMS}

    def feed(self, event: Event) -> Iterator[Row]:
        """Return the rows that are complete with the next event."""
        for line in self._splitter.feed(event):
            yield self._row(line)
        if isinstance(event.body, JobLeased | JobFinished):
            yield from self.end()

    def end(self) -> Iterator[Row]:
        """Return the rest of the output."""
        for line in self._splitter.finish():
            yield self._row(line)

    def _row(self, line: Line) -> Row:
        return Row(self._screens[line.stream].render(line.data), line.timestamp_ms, line.attempt, line.stream)


class TerminalTranscript:
    """Transcript of a job in a terminal of `cols` and `rows`: its scrollback, and what is on its screen at the end."""

    def __init__(self, cols: int, rows: int) -> None:
        from airunner.client.cli.emulator import Emulator  # imports pyte, which is an extra

        self._make = Emulator
        self._size = (cols, rows)
        self._emulator: Emulator | None = None

    def feed(self, event: Event) -> Iterator[Row]:
        """Return the rows that have left the screen with the next event."""
        match event.body:
            case Output(data=data):
                if self._emulator is None:
                    self._emulator = self._make(*self._size, event.attempt)
                yield from self._emulator.feed(data, event.timestamp_ms)
            case TerminalResize(cols=cols, rows=rows):
                self._size = (cols, rows)
                if self._emulator is not None:
                    self._emulator.resize(cols, rows)
            case JobLeased() | JobFinished():
                yield from self.end()
            case _:
                pass

    def end(self) -> Iterator[Row]:
        """Return what is on the screen; the next output begins on an empty one."""
        emulator, self._emulator = self._emulator, None
        if emulator is not None:
            yield from emulator.rows()
