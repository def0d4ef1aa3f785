"""Printers of events: as the job's output with a few messages of airunner's own, or as one JSON object a line."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any, assert_never

import msgspec

from airunner.client.cli.console import JobConsole
from airunner.client.cli.stamps import Stamps
from airunner.client.cli.wording import SHORT_COMMIT_CHARS, duration_text, end_text, instant_text
from airunner.client.loglines import Line
from airunner.protocol import events
from airunner.protocol.job import JobState, Reason
from airunner.protocol.printable import one_line, own_lines


class JsonPrinter:
    """JSON printer: prints every event, or only those of `kinds`, as one object a line on stdout."""

    def __init__(self, console: JobConsole, kinds: Collection[str] = ()) -> None:
        self._console = console
        self._kinds = kinds

    def show(self, batch: Sequence[events.Event]) -> None:
        """Show the next events."""
        for event in batch:
            if not self._kinds or event.kind in self._kinds:
                self._console.out_json(event_object(event))


class ConsolePrinter:
    """Console printer: prints the job's output and progress, with `stamps` if given; with `kinds`, only such events.

    Of `kinds` without OUTPUT, the messages are what was asked for, so they are printed on stdout.
    """

    def __init__(
        self, console: JobConsole, kinds: Collection[str] = (), stamps: Stamps | None = None, *, alone: bool = False
    ) -> None:
        self._console = console
        self._kinds = kinds
        self._stamps = stamps
        self._alone = alone  # whether the job runs without a cluster, whose queues and agents need not be named
        self._messages_only = bool(kinds) and "OUTPUT" not in kinds
        self._began_ms: int | None = None

    def show(self, batch: Sequence[events.Event]) -> None:
        """Show the next events, and write adjacent output of one stream at once."""
        for stream, adjacent in groupby(batch, _stream_of):
            shown = filter(self._note, adjacent)
            if stream is None:
                for event in shown:
                    self._show(event)
            elif pieces := [self._output(event) for event in shown]:
                self._console.job_output(stream, b"".join(pieces))

    def _note(self, event: events.Event) -> bool:
        """Take note of the next event, and return whether it is shown."""
        if self._stamps is not None:
            self._stamps.note(event)
        return not self._kinds or event.kind in self._kinds

    def _output(self, event: events.Event) -> bytes:
        assert isinstance(event.body, events.Output)
        return event.body.data if self._stamps is None else self._stamps.lines(event, event.body)

    def _show(self, event: events.Event) -> None:
        body = event.body
        stamps = self._stamps
        if isinstance(
            body, events.ProcessEnd | events.JobLeased | events.JobReleased | events.JobExpired | events.JobFinished
        ):
            self._console.job_over()  # a lost agent reports no end of its process
        if (message := self.message(event)) is not None:
            text = message if stamps is None else f"{stamps.stamp(event)}{message}"
            if self._messages_only:
                self._console.out_line(own_lines(text))
            elif _is_progress(event):
                self._console.say(text)
            else:
                self._console.must_say(text)

    def message(self, event: events.Event) -> str | None:
        """Return the message about the next event, which is not output; None: it has none."""
        if isinstance(event.body, events.ProcessStart):
            self._began_ms = event.body.started_at
        match event.body:
            case events.JobScheduled():
                return _scheduled(event.body, alone=self._alone)
            case events.JobUnblocked():
                return "the jobs before it have ended"
            case events.JobLeased(agent=agent):
                words = [] if self._alone else [f"leased by {agent}"]
                words += [f"attempt {event.attempt}"] if event.attempt > 1 else []
                return ", ".join(words) or None
            case events.JobReleased():
                return "released by its agent"
            case events.JobExpired():
                return "the lease expired: its agent was not heard from"
            case events.JobCancelRequested():
                return "cancel requested"
            case events.JobFinished():
                return self._finished(event.body)
            case (
                events.ProcessEnd()
                | events.Heartbeat()
                | events.TerminalResize()
                | events.LogSigned()
                | events.Artifact()
                | events.Returned()
                | events.Kept()
            ) if self._kinds:
                return _asked_message(event.body)
            case events.GitCloneProgress(message=message) if not self._kinds and events.GIT_COUNT.match(message):
                return None  # the status line shows it
            case _:
                return _agent_message(event.body)

    def _finished(self, body: events.JobFinished) -> str:
        ending = end_text(body.state, body.exit_code, body.signal, body.reason)
        took = "" if self._began_ms is None else f" after {duration_text(body.timestamp_ms - self._began_ms)}"
        return f"{ending}{took}"


def _stream_of(event: events.Event) -> events.Stream | None:
    return event.body.stream if isinstance(event.body, events.Output) else None


def _is_progress(event: events.Event) -> bool:
    """Return whether an event is progress only, which `--quiet` hides: no warning, and no reason of a failure.

    A command's own exit code is progress too: the client exits with it.
    """
    match event.body:
        case events.JobFinished(state=state, reason=reason):
            return state is JobState.COMPLETED or reason in (None, Reason.EXIT_CODE)
        case events.JobScheduled(retry=retry):
            return not retry
        case (
            events.JobReleased()
            | events.JobExpired()
            | events.GitCloneError()
            | events.ProcessError()
            | events.OutputTruncated()
        ):
            return False
        case _:
            return True


def _agent_message(body: events.AgentBody | events.UnknownBody) -> str | None:
    match body:
        case events.GitCloneStart(repository=repository):
            return f"checking out {repository}"
        case events.GitCloneProgress(message=message):
            return one_line(message)
        case events.GitCloneEnd(commit=commit, duration_ms=duration_ms):
            return f"checked out {commit[:SHORT_COMMIT_CHARS]} in {duration_text(duration_ms)}"
        case events.GitCloneError(message=message):
            return f"checkout failed: {message.strip()}"
        case events.ProcessStart(pid=pid):
            return f"started, pid {pid}"
        case events.ProcessError(message=message):
            return message.strip()
        case events.OutputTruncated(omitted_bytes=omitted_bytes):
            return f"{omitted_bytes} bytes of output were left out here"
        case (
            events.Output()
            | events.ProcessEnd()
            | events.Heartbeat()
            | events.TerminalResize()
            | events.LogSigned()
            | events.Artifact()
            | events.Returned()
            | events.Kept()
            | events.UnknownBody()
        ):
            return None
        case _:
            assert_never(body)


def _asked_message(
    body: events.ProcessEnd
    | events.Heartbeat
    | events.TerminalResize
    | events.LogSigned
    | events.Artifact
    | events.Returned
    | events.Kept,
) -> str:
    """Format an event that is shown only if its kind is asked for."""
    match body:
        case events.ProcessEnd(duration_ms=duration_ms):
            ending = f"with exit code {body.exit_code}" if body.signal is None else f"by signal {body.signal}"
            return f"command ended {ending} after {duration_text(duration_ms)}"
        case events.Heartbeat(elapsed_ms=elapsed_ms):
            return f"silent, {duration_text(elapsed_ms)} after its start"
        case events.TerminalResize(cols=cols, rows=rows):
            return f"terminal is {cols} columns by {rows} rows"
        case events.LogSigned(index=index):
            return f"signed by its agent: {index} events"
        case events.Artifact(path=path, size_bytes=size_bytes):
            return f"artifact {one_line(path)}, {size_bytes:,} bytes"
        case events.Returned(files=files, size_bytes=size_bytes):
            return f"changes in {files:,} files are returned, {size_bytes:,} bytes" if files else "nothing was changed"
        case events.Kept(files=files, size_bytes=size_bytes):
            return f"workspace saved: {files:,} files, {size_bytes:,} bytes"
        case _:
            assert_never(body)


def _scheduled(body: events.JobScheduled, *, alone: bool) -> str | None:
    again = f"failed; retry {body.retry}: " if body.retry else ""
    of = f" as a retry of {body.origin}" if body.origin else ""
    later = f", not before {instant_text(body.not_before_ms)}" if body.not_before_ms is not None else ""
    first = f" for the end of {body.unmet:,} {'job' if body.unmet == 1 else 'jobs'}" if body.unmet else ""
    if alone:
        return f"{again}waiting{first}{later}" if again or first or later else None
    return f"{again}waiting in queue {body.queue}{of}{first}{later}"


def event_object(event: events.Event) -> dict[str, Any]:
    """Convert an event to a JSON object.

    The `data` of OUTPUT is text if it is UTF-8, and otherwise base64; `encoding` says which.
    """
    fields = (
        dict(event.body.fields) if isinstance(event.body, events.UnknownBody) else msgspec.structs.asdict(event.body)
    )
    fields.pop("kind", None)
    shown: dict[str, Any] = {
        "job_id": event.job_id,
        "sequence": event.sequence,
        "attempt": event.attempt,
        "kind": event.kind,
        "timestamp_ms": fields.pop("timestamp_ms"),
        **fields,
    }
    if isinstance(event.body, events.Output):
        shown["data"], shown["encoding"] = text_of(event.body.data)
    return shown


def line_object(job_id: str, line: Line) -> dict[str, Any]:
    """Convert a line of output to a JSON object; `line` is as the `data` of OUTPUT, without its newline."""
    text, encoding = text_of(line.data.removesuffix(b"\n"))
    return {
        "job_id": job_id,
        "sequence": line.sequence,
        "attempt": line.attempt,
        "timestamp_ms": line.timestamp_ms,
        "stream": line.stream,
        "line": text,
        "encoding": encoding,
    }


def text_of(data: bytes) -> tuple[str, str]:
    """Convert bytes to text, and name its encoding: UTF-8, or base64 if they are not."""
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), "base64"
