"""Printer of a job's output for `airunner logs`: lines that are searched or shown as objects, or bytes as they come."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from airunner.client.cli.console import JobConsole
from airunner.client.cli.printing import ConsolePrinter, line_object
from airunner.client.cli.stamps import Stamps, Timestamps
from airunner.client.cli.wording import millisecond_text
from airunner.client.client import Client
from airunner.client.loglines import OUTPUT_KINDS, SEPARATOR, TAIL_BYTES_MAX, Line
from airunner.client.logreader import WINDOW_EVENTS, LogReader, Wanted
from airunner.protocol.sizes import bytes_text


class LogPrinter:
    """Log printer: prints what a `LogReader` reads; with `json`, lines as objects."""

    def __init__(
        self,
        client: Client,
        job_id: str,
        console: JobConsole,
        wanted: Wanted,
        pattern: re.Pattern[str] | None = None,
        context: int = 0,
        *,
        timestamps: bool = False,
        json: bool = False,
        window: int = WINDOW_EVENTS,
    ) -> None:
        self._reader = LogReader(client, job_id, wanted, pattern, context, window=window)
        self._job_id = job_id
        self._console = console
        self._timestamps = timestamps
        self._json = json
        self._searches = pattern is not None

    async def show(self, tail: int | None, *, follow: bool) -> None:
        """Print the last lines, as many as `tail`, or all; with `follow`, then what comes until the job ends."""
        reader = self._reader
        if self._json or self._searches:
            async for lines in reader.lines(tail, follow=follow):
                self._print(lines)
        else:
            await self._show_bytes(tail, follow=follow)
        self._console.job_over()
        if reader.tail_cut:
            size = bytes_text(TAIL_BYTES_MAX)
            self._console.must_say(f"the last {tail} lines take more than {size}: the first of them are not shown")
        if reader.omitted_bytes:
            self._console.must_say(f"{reader.omitted_bytes} bytes of output were left out by the agent")

    async def _show_bytes(self, tail: int | None, *, follow: bool) -> None:
        """Print the last lines, and then output as it comes, without waiting for the ends of lines."""
        start = 1
        if tail is not None:
            lines, start = await self._reader.last_lines(tail, keep=False)
            self._print(lines)
        if follow or tail is None:
            printer = ConsolePrinter(self._console, OUTPUT_KINDS, Stamps(Timestamps.FULL) if self._timestamps else None)
            async for batch in self._reader.events(start, follow=follow):
                printer.show(batch)

    def _print(self, lines: Iterable[Line]) -> None:
        if self._json:
            for line in lines:
                if line is not SEPARATOR:
                    self._console.out_json(line_object(self._job_id, line))
            return
        for stream, adjacent in groupby(lines, lambda line: line.stream):
            self._console.job_output(stream, b"".join(map(self._shown, adjacent)))

    def _shown(self, line: Line) -> bytes:
        stamp = (
            f"{millisecond_text(line.timestamp_ms)} ".encode() if self._timestamps and line is not SEPARATOR else b""
        )
        ended = line.data.endswith(b"\n") or not (stamp or self._searches)
        return stamp + line.data + (b"" if ended else b"\n")
