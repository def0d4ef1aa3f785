"""Console of the command line: writes a job's output as raw bytes, and airunner's own messages on stderr.

A job's output is written byte for byte, at once, without a buffer; on a terminal it passes the filter of `terminal`,
unless `--raw` is given. A reader that closes the pipe (`| head`) ends the command quietly, as it would end `cat`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol

from airunner.client.cli.standardstreams import STDERR, STDOUT, OutputLost, ReaderGone, may_block, write
from airunner.client.cli.terminal import RESET, TerminalFilter
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import STREAMS, Stream
from airunner.protocol.printable import json_line, own_lines

if TYPE_CHECKING:
    import anyio

NAMED_MAX: Final = 10  # jobs that a message names
DUMB: Final = "dumb"  # value of TERM for a terminal without cursor control
WIDTH: Final = 80  # of a terminal that does not say its own
STATUS_CHARS_MIN: Final = 20  # width of a status line; a narrower terminal shows none
SAVE, RESTORE = "\x1b7", "\x1b8"  # DECSC, DECRC: save and restore the cursor and its colours; terminals since the VT100
PLAIN, DIM, CLEAR = "\x1b[0m", "\x1b[0;2m", "\x1b[K"


def colours_are_wanted() -> bool:
    """Return whether a terminal of this environment is to get colours of ours (https://no-color.org)."""
    return os.environ.get("TERM", DUMB) != DUMB and not os.environ.get("NO_COLOR")


class JobConsole(Protocol):
    """Console of one job: what its printers write to."""

    def job_output(self, stream: Stream, data: bytes, /) -> None:
        """Write the job's output."""

    def job_over(self) -> None:
        """End the output of the job or an attempt."""

    def say(self, text: str, /) -> None:
        """Print progress."""

    def must_say(self, text: str, /) -> None:
        """Print a warning or a result."""

    def out_line(self, text: str, /) -> None:
        """Write a line to stdout."""

    def out_json(self, shown: object, /) -> None:
        """Write an object to stdout as one line of JSON."""


class Console:
    """Console of two descriptors; remembers in which of their files a line is not ended: they may share one.

    A message of airunner's own begins a line of stderr. So a job's last line on stdout is ended only where both are the
    same file, pipe or terminal.
    """

    def __init__(self, *, quiet: bool = False, raw: bool = False, stdout: int = STDOUT, stderr: int = STDERR) -> None:
        self._descriptors = (stdout, stderr)
        self._filters = tuple(
            TerminalFilter() if os.isatty(descriptor) and not raw else None for descriptor in self._descriptors
        )
        self.job_id = ""  # id of the job that is shown
        self.owns = False  # whether this command submitted that job
        self.sizes = False  # whether that job's terminal, if it has one, is to have the size of this one
        self.farewell = ""  # message if the command is interrupted now
        self.cancelling = ""  # the same once Ctrl-C has cancelled the jobs: it stands in for any farewell
        self.on_interrupt: Callable[[], Awaitable[bool | None]] | None = None  # see `decide`
        self.writing = False  # whether a write may be blocked, for long
        self._quiet = quiet
        self._file_of = {descriptor: _file(descriptor) for descriptor in self._descriptors}
        self._mid_line: set[tuple[int, int]] = set()  # files whose last line is not ended
        self._follows = False
        self._lost: set[int] = set()  # descriptors to which a followed job's output cannot be written
        self.exit_code = 0  # for a command that would exit with 0, although output is lost
        self._status = False  # whether a status line is shown; the cursor stays in front of it
        self._answered: anyio.Event | None = None  # of the last question

    @property
    def has_status(self) -> bool:
        """Whether a status line may be shown: both streams are terminals with cursor control, and not quiet or raw."""
        obeys = os.environ.get("TERM", DUMB) != DUMB
        return obeys and not self._quiet and None not in self._filters

    @property
    def person_reads(self) -> bool:
        """Whether a person reads the messages: stderr is a terminal, and not quiet."""
        return not self._quiet and os.isatty(self._descriptors[1])

    def is_terminal(self, stream: Stream) -> bool:
        """Return whether output of this stream goes to a terminal."""
        return os.isatty(self._descriptors[STREAMS.index(stream)])

    def has_colours(self, stream: Stream) -> bool:
        """Return whether what goes where this stream's output goes may have colours of ours."""
        return self.is_terminal(stream) and colours_are_wanted()

    def show_status(self, text: str) -> None:
        """Show a status line until something else is written; but not after an unfinished line of the job."""
        if not self.has_status or self._mid_line:
            return
        if not text:
            self._clear_status()
            return
        width = os.get_terminal_size(self._descriptors[1]).columns - 1  # a full line would wrap
        if width >= STATUS_CHARS_MIN:
            self._status = True
            line = text if len(text) <= width else f"{text[: width - 1]}…"
            shown = f"{SAVE}{DIM}{line}{PLAIN}{CLEAR}{RESTORE}"
            self._put(self._descriptors[1], shown.encode())

    def _clear_status(self) -> None:
        if self._status:
            self._status = False
            self._put(self._descriptors[1], f"{SAVE}{PLAIN}{CLEAR}{RESTORE}".encode())

    def follow(self) -> None:
        """Leave out from now on what cannot be written: the command ends with the job, and with its exit code."""
        self._follows = True

    def lose(self, error: OperatorError) -> None:
        """Go on without an output that cannot be written: report the error, and let the command not exit with 0."""
        self.exit_code = error.exit_code
        self.must_say(f"{error.message}; the rest of it is left out")

    def job_output(self, stream: Stream, data: bytes) -> None:
        """Write a job's output."""
        at = 0 if stream is Stream.STDOUT else 1
        terminal_filter = self._filters[at]
        self._write(self._descriptors[at], data if terminal_filter is None else terminal_filter.feed(data))

    def job_over(self) -> None:
        """End the output of a job or an attempt: clear the status line, and reset the colours of a terminal."""
        self._clear_status()
        for descriptor, terminal_filter in zip(self._descriptors, self._filters, strict=True):
            if terminal_filter is not None:
                self._write(descriptor, terminal_filter.finish())

    def out(self, text: bytes) -> None:
        """Write to stdout."""
        self._write(self._descriptors[0], text)

    def out_line(self, text: str) -> None:
        """Write a line to stdout."""
        self.out(text.encode(errors="replace") + b"\n")

    def out_text(self, text: str) -> None:
        """Write a text to stdout as one line; on a terminal as many lines as its words take."""
        import textwrap

        if not os.isatty(self._descriptors[0]):
            self.out_line(text)
            return
        width = os.get_terminal_size(self._descriptors[0]).columns or WIDTH
        for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
            self.out_line(line)

    def out_json(self, shown: object) -> None:
        """Write an object to stdout as one line of JSON."""
        self.out_line(json_line(shown))

    def out_submitted(self, jobs: Mapping[str, object], *, json: bool) -> None:
        """Print the ids of submitted jobs, or their objects; on stderr if stdout is lost, because the jobs exist."""
        for number, (job_id, shown) in enumerate(jobs.items()):
            try:
                self.out_json(shown) if json else self.out_line(job_id)
            except OutputLost:
                left = list(jobs)[number:]
                self.must_say(f"submitted {'job' if len(left) == 1 else 'jobs'} {' '.join(left)}")
                raise

    def say(self, text: str, prefix: str = "") -> None:
        """Print progress on stderr, unless quiet."""
        if not self._quiet:
            self.must_say(text, prefix)

    def must_say(self, text: str, prefix: str = "") -> None:
        """Print a warning, a hint or a result on stderr, quiet or not; never in a job's colours."""
        for descriptor, terminal_filter in zip(self._descriptors, self._filters, strict=True):
            if terminal_filter is not None:
                self._write(descriptor, terminal_filter.plain())
        self.end_line()
        self._write(
            self._descriptors[1], f"{prefix}airunner: {own_lines(text)}\n".encode(errors="replace"), self._put_message
        )

    @contextmanager
    def question(self, text: str) -> Generator[None]:
        """Print a question on stderr, on a line of its own, which the person ends within this block."""
        import anyio

        self._clear_status()
        self.end_line()
        self._put_message(self._descriptors[1], f"airunner: {text} ".encode(errors="replace"))
        self._mid_line.add(self._file_of[self._descriptors[1]])
        self._answered = anyio.Event()
        try:
            yield
            self._mid_line.discard(self._file_of[self._descriptors[1]])
        finally:
            self._answered.set()

    async def no_question(self) -> None:
        """Wait until no question stands on the terminal, because what is written now would run into it."""
        while self._answered is not None and not self._answered.is_set():  # it may be asked again
            await self._answered.wait()

    def end_line(self) -> None:
        """End the last line of stderr, so that a message does not stand behind it."""
        stderr = self._descriptors[1]
        if self._file_of[stderr] in self._mid_line:
            self._write(stderr, b"\n", self._put_message)

    async def decide(self) -> bool | None:
        """Decide at Ctrl-C whether the command ends (the default) or goes on; None: it forgets the interrupt."""
        if self.has_status and not self._mid_line:
            self._put(self._descriptors[1], f"\r{CLEAR}".encode())  # the ^C that the terminal shows
        return True if self.on_interrupt is None else await self.on_interrupt()

    def say_farewell(self) -> None:
        """Print the farewell, if there is one and stderr can still be written."""
        if self.farewell:
            with suppress(ReaderGone):
                self.must_say(self.cancelling or self.farewell)

    def _write(self, descriptor: int, text: bytes, put: Callable[[int, bytes], None] | None = None) -> None:
        if text:
            self._clear_status()
        (put or self._put)(descriptor, text)
        if shown := text.removesuffix(RESET):
            (self._mid_line.discard if shown.endswith(b"\n") else self._mid_line.add)(self._file_of[descriptor])

    def _put(self, descriptor: int, text: bytes) -> None:
        if descriptor in self._lost:
            return
        try:
            self._write_now(descriptor, text)
        except OutputLost as lost:
            if not self._follows:
                raise
            self._lost.add(descriptor)
            if descriptor == self._descriptors[0] and not lost.closed:
                self.lose(lost)

    def _put_message(self, descriptor: int, text: bytes) -> None:
        """Write a message, or drop it: a reader that is gone ends the command only if it reads the output too."""
        try:
            self._write_now(descriptor, text)
        except OutputLost:
            pass
        except ReaderGone:
            if self._file_of[descriptor] == self._file_of[self._descriptors[0]]:
                raise

    def _write_now(self, descriptor: int, text: bytes) -> None:
        self.writing = may_block(descriptor, text)
        try:
            write(descriptor, text)
        finally:
            self.writing = False


def continues(*job_ids: str, verb: str = "monitor") -> str:
    """Return the farewell of a command that is interrupted while it follows jobs: `airunner VERB` goes on with them."""
    if not job_ids:
        return ""
    if len(job_ids) > NAMED_MAX:
        return f"{len(job_ids)} jobs continue; `airunner list` shows them"
    from airunner.client.cli.columns import short_ids

    goes_on, them = ("job continues", "it") if len(job_ids) == 1 else ("jobs continue", "them")
    ids = " ".join(short_ids(job_ids))
    return f"the {goes_on}; `airunner {verb} {ids}` returns to {them}, `airunner cancel {ids}` ends {them}"


def _file(descriptor: int) -> tuple[int, int]:
    """Return the device and number of a descriptor's file; a closed descriptor has one of its own."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return -1, descriptor
    return found.st_dev, found.st_ino
