"""Exporters: convert a job's events, one after the other, to the bytes of an export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from airunner.client.cli.columns import took_text
from airunner.client.cli.console import Console
from airunner.client.cli.htmlpage import HtmlPage
from airunner.client.cli.printing import ConsolePrinter, event_object
from airunner.client.cli.transcript import NEEDS_PYTE, transcript_of
from airunner.client.cli.wording import end_text, instant_text
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import Event, Output
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Job
from airunner.protocol.printable import json_line, shell_line
from airunner.protocol.shownspec import shown_spec


class Exporter(Protocol):
    """Exporter of a job's events."""

    def feed(self, event: Event) -> bytes:
        """Convert the next event."""
        ...

    def end(self) -> bytes:
        """Return the end of the export, which may be empty."""
        ...


class Each:
    """Exporter that converts each event to text by itself."""

    def __init__(self, convert: Callable[[Event], str]) -> None:
        self._convert = convert

    def feed(self, event: Event) -> bytes:
        """Convert the next event."""
        return self._convert(event).encode()

    def end(self) -> bytes:
        """Return nothing."""
        return b""


def json_text(event: Event) -> str:
    """Convert an event to a line of JSON."""
    return f"{json_line(event_object(event))}\n"


class Raw:
    """Exporter of a job's output as it was written."""

    def feed(self, event: Event) -> bytes:
        """Return the output in the next event."""
        return event.body.data if isinstance(event.body, Output) else b""

    def end(self) -> bytes:
        """Return nothing."""
        return b""


class Text:
    """Exporter of what a terminal has shown of a job's output, without colours."""

    def __init__(self, spec: JobSpec) -> None:
        self._transcript = transcript_of(spec)

    def feed(self, event: Event) -> bytes:
        """Return the rows that are complete with the next event."""
        return "".join(f"{row.text}\n" for row in self._transcript.feed(event)).encode()

    def end(self) -> bytes:
        """Return the rest of the rows."""
        return "".join(f"{row.text}\n" for row in self._transcript.end()).encode()


def svg(spec: JobSpec, title: str) -> Exporter:
    """Return the exporter of an SVG image. Raises `OperatorError`: it needs a terminal emulator."""
    try:
        from airunner.client.cli.svgimage import SvgImage
    except ImportError as error:
        raise OperatorError(NEEDS_PYTE) from error
    return SvgImage(spec, title)


class Html:
    """Exporter of a job's log as an HTML page with `title`."""

    def __init__(self, job: Job, title: str) -> None:
        result = job.result
        ended = result and end_text(job.state, result.exit_code, result.signal, result.reason)
        facts = (
            ("job", job.id),
            ("command", shell_line(shown_spec(job.spec).argv)),
            ("end", ended or ""),
            ("queue", job.spec.queue),
            ("agent", job.agent or ""),
            ("submitted", instant_text(job.submitted_ms)),
            ("started", instant_text(job.started_ms)),
            ("took", took_text(job.started_ms, job.finished_ms)),
        )
        self._page = HtmlPage(title, job.state, facts)
        self._transcript = transcript_of(job.spec)
        self._messages = ConsolePrinter(Console())
        self._begun = False

    def feed(self, event: Event) -> bytes:
        """Return the lines of the page that are complete with the next event."""
        self._page.note_start(event)
        text = self._head() + "".join(self._page.rows(self._transcript.feed(event)))
        if not isinstance(event.body, Output) and (message := self._messages.message(event)) is not None:
            text += self._page.message(message, event.timestamp_ms)
        return text.encode()

    def end(self) -> bytes:
        """Return the end of the page."""
        rest = "".join(self._page.rows(self._transcript.end()))
        return (self._head() + rest + self._page.end()).encode()

    def _head(self) -> str:
        begun, self._begun = self._begun, True
        return "" if begun else "".join(self._page.begin())
