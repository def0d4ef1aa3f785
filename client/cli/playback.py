"""Playback of a job's log with its original timing, faster or slower, and with long pauses cut short.

Each event is due at an instant, so that the time which printing and requests take never adds up. As in asciinema,
pauses are cut first, and then the speed applies. `Schedule` is pure.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from airunner.protocol.durations import duration_ms, of_flag
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import AgentBody, Event, Heartbeat, TerminalResize

SPEED_MIN: Final = 0.01
SPEED_MAX: Final = 1_000
_UNSEEN: Final = (Heartbeat, TerminalResize)  # they do not interrupt a pause


class Schedule:
    """Schedule of a playback: when to show each event.

    Times are those of an attempt's agent. The broker's events are due with the event before them, and an attempt begins
    as the one before ends: clocks of two machines are not compared, and the time in a queue is left out.
    """

    def __init__(self, speed: float = 1.0, idle_max_ms: int | None = None) -> None:
        self._speed = speed
        self._idle_max_ms = idle_max_ms
        self._attempt = 0
        self._last_ms: int | None = None  # the agent's time of the last event
        self._due_ms = 0

    def due_s(self, event: Event) -> float:
        """Return when to show the next event, in seconds from the beginning of the playback."""
        if event.attempt != self._attempt:
            self._attempt, self._last_ms = event.attempt, None
        if isinstance(event.body, AgentBody) and not isinstance(event.body, _UNSEEN):
            if self._last_ms is not None:
                pause_ms = max(0, event.timestamp_ms - self._last_ms)
                self._due_ms += pause_ms if self._idle_max_ms is None else min(pause_ms, self._idle_max_ms)
            self._last_ms = max(event.timestamp_ms, self._last_ms or 0)
        return self._due_ms / 1_000 / self._speed


def schedule_of(speed: float | None, idle_max: str | None, jobs: int, *, playback: bool) -> Schedule | None:
    """Read the options of a playback; None: there is none. Raises `OperatorError`."""
    if not playback:
        for option, given in (("--speed", speed), ("--idle-max", idle_max)):
            if given is not None:
                raise OperatorError(f"{option} is for --playback, which is not given")
        return None
    if jobs > 1:
        raise OperatorError(f"--playback plays one job, not {jobs}")
    idle_max_ms = None if idle_max is None else of_flag("--idle-max", duration_ms, idle_max)
    return Schedule(1.0 if speed is None else speed, idle_max_ms)


async def play(events: AsyncIterator[Event], show: Callable[[Sequence[Event]], None], schedule: Schedule) -> None:
    """Show each event when it is due, at once if it is late."""
    import anyio

    began_s: float | None = None
    async for event in events:
        if began_s is None:
            began_s = anyio.current_time()
        await anyio.sleep_until(began_s + schedule.due_s(event))
        show([event])
