r"""Recordings of a job's console in asciicast v3, which `asciinema play` shows and websites embed. Pure.

```
{"version": 3, "term": {"cols": 80, "rows": 24}, "timestamp": 1760000000, …}
[0.25, "o", "hello\r\n"]      output; the number is seconds since the line before
[1.0, "r", "120x40"]          the terminal has another size
[0.0, "m", "attempt 2"]       another attempt begins, on a cleared screen
[3.2, "x", "7"]               the exit status of `monitor`
```

- Times come from the agent's clock, from the start of the command on; no other clock is compared with it. The time
  between two attempts comes from the broker's clock.
- Bytes that are not UTF-8 become U+FFFD, as on a terminal; a character that is split between two events stays whole.
- Output of a pipe has bare newlines: they are recorded with a carriage return, as a terminal would get them.

Source: https://docs.asciinema.org/manual/asciicast/v3/
"""

from __future__ import annotations

import codecs
import re
import shlex
from typing import Any, Final

from airunner.client.cli.watching import exit_status
from airunner.protocol.events import (
    Event,
    JobFinished,
    JobLeased,
    Output,
    OutputTruncated,
    ProcessEnd,
    ProcessStart,
    Stream,
    TerminalResize,
)
from airunner.protocol.fields import JobSpec, ProcessType
from airunner.protocol.printable import json_line
from airunner.protocol.shownspec import shown_spec

VERSION: Final = 3
TERMINAL_TYPE: Final = "xterm-256color"  # TERM of the agent's terminals
CLEARED: Final = "\x1bc"  # RIS: resets text, colours and modes of the previous attempt
_LONE_NEWLINE: Final = re.compile("(?<!\r)\n")


class Cast:
    """Cast of a job: makes its recording, line by line; `version` 2 is for players that do not know 3.

    There times count from the beginning, and the exit status is left out.
    """

    def __init__(self, spec: JobSpec, title: str, *, version: int = VERSION) -> None:
        self._version = version
        self._total_ms = 0  # of all lines so far
        self._title = title
        self._command = shlex.join(shown_spec(spec).argv)
        self._terminal = spec.process_type is ProcessType.PTY
        self._size = (spec.terminal.cols, spec.terminal.rows)
        self._decoders = _decoders()
        self._after_return = False
        self._begun = False
        self._attempt = 0
        self._last_ms: int | None = None  # by the clock of this attempt's agent; None before its command began
        self._waiting_ms = 0  # time since the last line of the recording
        self._elapsed_ms = 0  # time of this attempt that is recorded
        self._leased_ms = 0

    def feed(self, event: Event) -> str:
        """Convert the next event of the job to lines of the recording; the first line of all is the header."""
        body = event.body
        match body:
            case JobLeased():
                return self._next_attempt(event)
            case JobFinished():
                return self._rest() + (self._line("x", str(exit_status(body))) if self._version == VERSION else "")
            case Output() | ProcessStart() | ProcessEnd() | TerminalResize() | OutputTruncated():
                self._pass(event.timestamp_ms)
            case _:
                return ""
        match body:
            case Output(stream=stream, data=data):
                return self._output(self._decoders[stream].decode(data))
            case TerminalResize(cols=cols, rows=rows) if (cols, rows) != self._size:
                self._size = (cols, rows)
                return self._line("r", f"{cols}x{rows}") if self._begun else ""
            case OutputTruncated(omitted_bytes=omitted_bytes):
                return self._line("m", f"{omitted_bytes} bytes of output were left out here")
            case ProcessEnd():
                return self._rest()
            case _:
                return ""

    def _pass(self, now_ms: int) -> None:
        """Add the time up to `now_ms`; none if the agent's clock was set back."""
        passed_ms = 0 if self._last_ms is None else max(0, now_ms - self._last_ms)
        self._last_ms = now_ms
        self._waiting_ms += passed_ms
        self._elapsed_ms += passed_ms

    def _next_attempt(self, leased: Event) -> str:
        """Return the rest of the attempt before, if any, and the marker of the next attempt."""
        rest = self._rest()
        if self._attempt:
            self._waiting_ms += max(0, leased.timestamp_ms - self._leased_ms - self._elapsed_ms)
        text = rest
        if self._begun:
            text += self._line("m", f"attempt {leased.attempt}") + self._line("o", CLEARED)
        self._attempt = leased.attempt
        self._leased_ms = leased.timestamp_ms
        self._last_ms = None
        self._elapsed_ms = 0
        return text

    def _output(self, text: str) -> str:
        if not text:
            return ""
        if not self._terminal:
            after_return, self._after_return = self._after_return, text.endswith("\r")
            first = text[0] if after_return and text[0] == "\n" else ""
            text = first + _LONE_NEWLINE.sub("\r\n", text[len(first) :])
        return self._line("o", text)

    def _rest(self) -> str:
        """Decode the rest of the output: bytes of a character that was never completed."""
        rest = "".join(decoder.decode(b"", final=True) for decoder in self._decoders.values())
        self._decoders = _decoders()
        return self._output(rest)

    def _line(self, code: str, data: str) -> str:
        header = "" if self._begun else f"{json_line(self._header())}\n"
        self._begun = True
        waited_ms, self._waiting_ms = self._waiting_ms, 0
        if self._version < VERSION:
            self._total_ms += waited_ms
            waited_ms = self._total_ms
        return f"{header}{json_line([waited_ms / 1_000, code, data])}\n"

    def _header(self) -> dict[str, Any]:
        cols, rows = self._size
        term: dict[str, Any] = {"cols": cols, "rows": rows}
        if self._terminal:
            term["type"] = TERMINAL_TYPE
        header = {"version": self._version, "term": term, "command": self._command, "title": self._title}
        if self._version < VERSION:
            del header["term"]
            header |= {"width": cols, "height": rows, "env": {"TERM": TERMINAL_TYPE}}
        return header if self._last_ms is None else {**header, "timestamp": (self._last_ms - self._waiting_ms) // 1_000}


def _decoders() -> dict[Stream, codecs.IncrementalDecoder]:
    make = codecs.getincrementaldecoder("utf-8")
    return {stream: make("replace") for stream in Stream}
