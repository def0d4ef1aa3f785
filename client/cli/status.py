"""Status line below a job's output: how long a job has run or waited, and how long ago its last output was.

`Progress` is pure. A time shown is the difference of two events' timestamps plus the time since the last event came. So
this machine's clock may be wrong, but a monitor that starts late shows too little until it receives the next event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final, Self

import anyio

from airunner.client.cli.console import Console
from airunner.client.cli.wording import bytes_text, duration_text
from airunner.protocol import events

TICK_S: Final = 1.0  # between two updates of the line, which shows whole seconds
_DOING: Final[Mapping[type, str]] = {
    events.JobScheduled: "waiting",
    events.JobReleased: "waiting",
    events.JobExpired: "waiting",
    events.JobLeased: "starting",
    events.GitCloneStart: "checking out",
    events.ProcessEnd: "ending",
    events.JobFinished: "",
}
OVERDUE_MS: Final = 75_000  # of an agent's silence before it is shown: two of its heartbeats, and a slow network


class Progress:
    """Progress of a job, from its events; `now_s` is any steady clock."""

    def __init__(self) -> None:
        self._doing = ""
        self._began_ms = 0
        self._output_ms: int | None = None
        self._vitals = ""
        self._beats = False  # whether this attempt's agent has sent a heartbeat since the last change
        self._last_ms = 0
        self._last_s = 0.0

    def note(self, event: events.Event, now_s: float) -> None:
        """Update the progress with the next event."""
        body = event.body
        self._last_ms, self._last_s = event.timestamp_ms, now_s
        if isinstance(body, events.ProcessStart):
            self._begin("running", body.started_at)
        elif isinstance(body, events.Output):
            self._output_ms = event.timestamp_ms
        elif isinstance(body, events.Heartbeat):
            self._beats = True
            self._vitals = _vitals(body)
        elif (doing := _DOING.get(type(body))) is not None:
            self._begin(doing, event.timestamp_ms)

    def text(self, now_s: float) -> str:
        """Format the status line at this instant; empty before the first event and after the last."""
        if not self._doing:
            return ""
        age_ms = max(0, int((now_s - self._last_s) * 1_000))
        line = f"{self._doing} {_whole(self._last_ms - self._began_ms + age_ms)}"
        if self._doing != "running":
            return line
        heard = "no output yet"
        if self._output_ms is not None:
            heard = f"last output {_whole(self._last_ms - self._output_ms + age_ms)} ago"
        late = self._beats and age_ms > OVERDUE_MS  # an older agent may send no heartbeats
        overdue = f", its agent not heard for {_whole(age_ms)}" if late else ""
        return f"{line}, {heard}{self._vitals}{overdue}"

    def _begin(self, doing: str, began_ms: int) -> None:
        self._doing = doing
        self._began_ms = began_ms
        self._output_ms = None
        self._vitals = ""
        self._beats = False


class WithStatus:
    """Events with a status line: passes events on, and shows a status line on `console` while none comes."""

    def __init__(self, source: AsyncIterator[events.Event], console: Console) -> None:
        self._source = source
        self._console = console
        self._progress = Progress()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> events.Event:
        while True:
            with anyio.move_on_after(TICK_S):
                event = await anext(self._source)
                self._progress.note(event, anyio.current_time())
                return event
            self._console.show_status(self._progress.text(anyio.current_time()))


def _vitals(beat: events.Heartbeat) -> str:
    if not beat.processes:
        return ""
    several = "es" if beat.processes > 1 else ""
    return f", {beat.processes} process{several}, {bytes_text(beat.memory_bytes)}"


def _whole(ms: int) -> str:
    """Format a duration in whole seconds."""
    seconds = max(0, ms) // 1_000
    return f"{seconds} s" if seconds < 60 else duration_text(seconds * 1_000)  # noqa: PLR2004 - seconds of a minute
