"""Status line below a job's output: how long a job has run or waited, and how long ago its last output was.

`Progress` is pure. A time shown is the difference of two timestamps of one clock, the broker's or the agent's, plus the
age of the later one. The age of an event that was awaited is the time since it came, so this machine's clock may be
wrong. Only the events that a late monitor finds in the log are as old as this machine's clock says.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Self

import anyio

from airunner.client.cli.console import Console
from airunner.client.cli.wording import duration_text
from airunner.protocol import events
from airunner.protocol.printable import one_line
from airunner.protocol.sizes import bytes_text
from airunner.transport.ports import SYSTEM

TICK_S: Final = 1.0  # between two updates of the line, which shows whole seconds
REASON_S: Final = 10.0  # between two questions to the broker why a job still waits
_DOING: Final[Mapping[type, str]] = {
    events.JobScheduled: "waiting",
    events.JobUnblocked: "waiting",
    events.JobReleased: "waiting",
    events.JobExpired: "waiting",
    events.JobLeased: "starting",
    events.GitCloneStart: "checking out",
    events.GitCloneEnd: "starting",
    events.ProcessEnd: "ending",
    events.JobFinished: "",
}
_READY: Final = (events.JobScheduled, events.JobUnblocked, events.JobReleased, events.JobExpired)
OVERDUE_MS: Final = 75_000  # of an agent's silence before it is shown: two of its heartbeats, and a slow network


class Progress:
    """Progress of a job, from its events; `now_s` is any steady clock."""

    def __init__(self) -> None:
        self.doing = ""  # the phase, such as `running`
        self.began_ms = 0  # when it began, by the clock of its first event
        self.reason = ""  # why the job waits
        self.draws = False  # whether the command runs in a terminal, on which it may draw
        self._agent = ""
        self._output_ms: int | None = None
        self._vitals = ""
        self._beats = False  # whether this attempt's agent has sent a heartbeat since the last change
        self._last_ms = 0
        self._last_s = 0.0
        self._came_ms = 0  # age of the last event when it came
        self.may_begin_s = math.inf  # when the job may begin, if it waits

    def note(self, event: events.Event, now_s: float, age_ms: int = 0) -> None:
        """Update the progress with the next event, which was `age_ms` old when it came."""
        body = event.body
        if isinstance(body, events.JobCancelRequested):
            return  # it has the broker's clock, and what runs has the agent's
        self._last_ms, self._last_s, self._came_ms = event.timestamp_ms, now_s, age_ms
        delay_ms = max(0, (getattr(body, "not_before_ms", None) or 0) - event.timestamp_ms - age_ms)
        self.may_begin_s = now_s + delay_ms / 1_000 if isinstance(body, _READY) else math.inf
        if isinstance(body, events.ProcessStart):
            self._begin("running", body.started_at)
        elif isinstance(body, events.Output):
            self._output_ms = event.timestamp_ms
        elif isinstance(body, events.TerminalResize):
            self.draws = True
        elif isinstance(body, events.GitCloneProgress):
            self.reason = one_line(body.message)
        elif isinstance(body, events.Heartbeat):
            self._beats = True
            self._vitals = _vitals(body)
        elif (doing := _DOING.get(type(body))) is not None:
            if isinstance(body, (events.JobLeased, *_READY)):
                self._agent = body.agent if isinstance(body, events.JobLeased) else ""
            self._begin(doing, event.timestamp_ms)

    def text(self, now_s: float) -> str:
        """Format the status line at this instant; empty before the first event and after the last."""
        if not self.doing:
            return ""
        age_ms = self._came_ms + max(0, int((now_s - self._last_s) * 1_000))
        on = f" on {self._agent}" if self._agent else ""
        line = f"{self.doing} {whole_seconds(self._last_ms - self.began_ms + age_ms)}{on}"
        if self.doing != "running":
            return f"{line}: {self.reason}" if self.reason else line
        heard = "no output yet"
        if self._output_ms is not None:
            heard = f"last output {whole_seconds(self._last_ms - self._output_ms + age_ms)} ago"
        late = self._beats and age_ms > OVERDUE_MS  # an older agent may send no heartbeats
        overdue = f", its agent not heard for {whole_seconds(age_ms)}" if late else ""
        return f"{line}, {heard}{self._vitals}{overdue}"

    def _begin(self, doing: str, began_ms: int) -> None:
        self.doing = doing
        self.began_ms = began_ms
        self.reason = ""
        self.draws = False
        self._output_ms = None
        self._vitals = ""
        self._beats = False


class WithStatus:
    """Events with a status line below what is shown of them, on `console`, with the reason why the job waits.

    The line is drawn again after each batch, and each second. A command that runs in a terminal has the whole screen:
    there is no line, which what it draws would mix with.

    It iterates over the batches of `next_batch`, of which an empty one is the end. `ask_why` asks the broker why the
    job waits, and prints what the user has to know: once, and every `REASON_S` if there is a status line. `fresh`: the
    job was submitted just now, so its first events are not old.
    """

    def __init__(
        self,
        next_batch: Callable[[], Awaitable[Sequence[events.Event]]],
        console: Console,
        ask_why: Callable[[], Awaitable[str]],
        *,
        status: bool,
        fresh: bool,
    ) -> None:
        self._next_batch = next_batch
        self._console = console
        self._ask_why = ask_why
        self._status = status and console.has_status
        self._ask_s = -math.inf  # when the broker may be asked again
        self._live = fresh  # whether the next event was awaited
        self._progress = Progress()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[events.Event]:
        while True:
            self._draw()
            ask_s = max(self._progress.may_begin_s + TICK_S, self._ask_s)
            batch: Sequence[events.Event] = ()
            with anyio.move_on_after(TICK_S if self._status else max(TICK_S, ask_s - anyio.current_time())) as wait:
                batch = await self._next_batch()
            await self._console.no_question()
            if not wait.cancelled_caught:
                if not batch:
                    raise StopAsyncIteration
                now_s, wall_ms = anyio.current_time(), SYSTEM.wall_ms()
                for event in batch:
                    self._progress.note(event, now_s, 0 if self._live else max(0, wall_ms - event.timestamp_ms))
                return batch
            self._live = True
            if anyio.current_time() >= ask_s:
                self._ask_s = anyio.current_time() + (REASON_S if self._status else math.inf)
                self._progress.reason = await self._ask_why()

    def _draw(self) -> None:
        if self._status:
            self._console.show_status("" if self._progress.draws else self._progress.text(anyio.current_time()))


def _vitals(beat: events.Heartbeat) -> str:
    if not beat.processes:
        return ""
    several = "es" if beat.processes > 1 else ""
    return f", {beat.processes} process{several}, {bytes_text(beat.memory_bytes)}"


def whole_seconds(ms: int) -> str:
    """Format a duration in whole seconds."""
    seconds = max(0, ms) // 1_000
    return f"{seconds} s" if seconds < 60 else duration_text(seconds * 1_000)  # noqa: PLR2004 - seconds of a minute
