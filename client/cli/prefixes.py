"""Prefixes of several jobs that are shown together: `build | text`, as docker compose has them.

A line is printed once it is whole, or has 64 KiB, so that lines of jobs do not mix; the last one when its job ends. A
pipe gets the bytes of each line unchanged. On a terminal, a line that was overwritten after carriage returns is shown
as it is in the end, and its colours end with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from airunner.client.cli.columns import short_ids
from airunner.client.cli.console import PLAIN, Console
from airunner.client.cli.jobname import NoJob, job_id_of
from airunner.protocol.errors import NotFound, OperatorError
from airunner.protocol.events import STREAMS, Stream
from airunner.protocol.job import Job
from airunner.protocol.logsearch import LINE_BYTES_MAX

if TYPE_CHECKING:
    from airunner.client.client import Client

COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""Colours of SGR, in turn: cyan, yellow, green, magenta, blue, and bright ones; red looks like an error."""
JOBS_MAX: Final = 128  # jobs that are shown together: each has a follower and a subscription
NAME_CHARS_MAX: Final = 24


def labels_of(jobs: Sequence[Job]) -> list[str]:
    """Make labels of equal width: a job's name, its short id if it has none, or both if others have the name."""
    ids = short_ids([job.id for job in jobs])
    named = Counter(job.spec.name for job in jobs)
    labels: list[str] = []
    for job, short in zip(jobs, ids, strict=True):
        name = job.spec.name
        name = name if len(name) <= NAME_CHARS_MAX else f"{name[: NAME_CHARS_MAX - 1]}…"
        labels.append(name if name and named[job.spec.name] == 1 else f"{name} {short}".strip())
    return [label.ljust(max(map(len, labels))) for label in labels]


class Prefixed:
    """Console of one of several jobs: puts `label` before each line, in the colour of its `number`."""

    def __init__(self, console: Console, label: str, number: int) -> None:
        self._console = console
        self._prefix = f"{label} | "
        self._colour = COLOURS[number % len(COLOURS)]
        self._begun: dict[Stream, bytearray] = {stream: bytearray() for stream in STREAMS}

    def job_output(self, stream: Stream, data: bytes) -> None:
        """Write the lines that end in this output."""
        *ends, rest = data.split(b"\n")
        begun = self._begun[stream]
        lines: list[bytes] = []
        for end in ends:
            lines.append(self._line(stream, bytes(begun) + end))
            begun.clear()
        begun += rest
        if len(begun) > LINE_BYTES_MAX:
            lines.append(self._line(stream, bytes(begun)))
            begun.clear()
        self._console.job_output(stream, b"".join(lines))

    def job_over(self) -> None:
        """Write the unfinished lines of a job or an attempt."""
        for stream, begun in self._begun.items():
            if begun:
                self._console.job_output(stream, self._line(stream, bytes(begun)))
                begun.clear()

    def say(self, text: str) -> None:
        """Print progress on stderr, unless quiet."""
        self._console.say(text, self._shown(Stream.STDERR))

    def must_say(self, text: str) -> None:
        """Print a warning or a result on stderr."""
        self._console.must_say(text, self._shown(Stream.STDERR))

    def out_line(self, text: str) -> None:
        """Write a line to stdout."""
        self._console.out_line(f"{self._shown(Stream.STDOUT)}{text}")

    def out_json(self, shown: object) -> None:
        """Write an object to stdout as one line of JSON, which has no prefix: it has the job's id."""
        self._console.out_json(shown)

    def _line(self, stream: Stream, line: bytes) -> bytes:
        if self._console.is_terminal(stream):
            line = line.rstrip(b"\r").rpartition(b"\r")[2]
            if b"\x1b" in line:
                line += PLAIN.encode()
        return b"%b%b\n" % (self._shown(stream).encode(), line)

    def _shown(self, stream: Stream) -> str:
        coloured = self._console.has_colours(stream)
        return f"\x1b[{self._colour}m{self._prefix}{PLAIN}" if coloured else self._prefix


async def prefixed(client: Client, console: Console, operands: Sequence[str]) -> dict[str, Prefixed]:
    """Find the jobs that operands mean, each once, and make their consoles. Raises `NoJob`, `OperatorError`."""
    jobs: dict[str, Job] = {}
    for operand in operands:
        job_id = await job_id_of(client, operand)
        try:
            jobs[job_id] = await client.get(job_id)
        except NotFound as error:
            raise NoJob(operand) from error
    if len(jobs) > JOBS_MAX:
        raise OperatorError(f"{len(jobs)} jobs: at most {JOBS_MAX} are shown together")
    labels = labels_of(list(jobs.values()))
    return {
        job_id: Prefixed(console, label, number)
        for number, (job_id, label) in enumerate(zip(jobs, labels, strict=True))
    }
