"""Phases of a job's last attempt, as a bar: waiting, starting, checkout, command, ending. Pure.

Each phase begins with an event and ends with the next one. Some events have the broker's clock and some the agent's, so
a phase may seem to end before it began; it then has no length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from airunner.client.cli.wording import duration_text
from airunner.protocol import events
from airunner.protocol.events import Event

BAR_UNITS: Final = 1_000  # width of the bar, which is then stretched
UNITS_MIN: Final = 4  # of a phase that took any time: a sliver that is seen
WAITING: Final = "waiting"
_BEGINS: Final[Mapping[type, str]] = MappingProxyType(
    {
        events.JobScheduled: WAITING,
        events.JobUnblocked: WAITING,
        events.JobReleased: WAITING,
        events.JobExpired: WAITING,
        events.JobLeased: "starting",
        events.GitCloneStart: "checkout",
        events.GitCloneEnd: "starting",
        events.GitCloneError: "ending",
        events.ProcessStart: "command",
        events.ProcessEnd: "ending",
        events.JobFinished: "",
    }
)
PHASE_KINDS: Final = (
    "JOB_SCHEDULED",
    "JOB_UNBLOCKED",
    "JOB_RELEASED",
    "JOB_EXPIRED",
    "JOB_LEASED",
    "GIT_CLONE_START",
    "GIT_CLONE_END",
    "GIT_CLONE_ERROR",
    "PROCESS_START",
    "PROCESS_END",
    "JOB_FINISHED",
)
"""Kinds of events that phases are made of, which include those of attempts."""


class Phase(Struct, frozen=True):
    """Phase of an attempt: how long it took; `open`: it goes on. `x` and `width` are its place in the bar."""

    name: str
    ms: int
    open: bool = False
    x: int = 0
    width: int = 0

    @property
    def text(self) -> str:
        """The phase in words."""
        return f"{self.name} {duration_text(self.ms)}"


def phases_of(log: Iterable[Event], now_ms: int) -> list[Phase]:
    """List the phases of the last attempt, and of the wait before it, with their places in the bar."""
    begun: list[tuple[str, int]] = []
    for event in log:
        name = _BEGINS.get(type(event.body))
        if name is None or (not begun and name != WAITING) or (begun and begun[-1][0] == name):
            continue  # of a log that is read in parts, an attempt may have no beginning
        if name == WAITING:
            begun = []
        begun.append((name, event.timestamp_ms))
    if begun and begun[-1][0]:
        begun.append(("", now_ms))
        ends = False
    else:
        ends = True
    phases = [Phase(name, max(0, ended_ms - began_ms)) for (name, began_ms), (_, ended_ms) in pairwise(begun)]
    if phases and not ends:
        phases[-1] = Phase(phases[-1].name, phases[-1].ms, open=True)
    return _placed(_joined(phases))


def _joined(phases: Sequence[Phase]) -> list[Phase]:
    """Join the phases of one name: what is between checkout and command is part of the start."""
    joined: dict[str, Phase] = {}
    for phase in phases:
        known = joined.get(phase.name)
        joined[phase.name] = Phase(phase.name, phase.ms + (known.ms if known else 0), phase.open)
    return list(joined.values())


def _placed(phases: Sequence[Phase]) -> list[Phase]:
    """Divide the bar by lengths, with at least `UNITS_MIN` for each."""
    total_ms = sum(phase.ms for phase in phases) or 1
    room = BAR_UNITS - UNITS_MIN * len(phases)
    placed: list[Phase] = []
    x = 0
    for phase in phases:
        width = UNITS_MIN + room * phase.ms // total_ms
        placed.append(Phase(phase.name, phase.ms, phase.open, x, width))
        x += width
    return placed
