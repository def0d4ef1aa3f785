"""Kinds of events that `--events` and `--event-filter` choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from airunner.client.loglines import OUTPUT_KINDS
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import EVENT_KINDS

_DETAILS: Final = ("OUTPUT", "GIT_CLONE_PROGRESS", "HEARTBEAT", "TERMINAL_RESIZE", "LOG_SIGNED")


class Choice(StrEnum):
    """Choice of events: all; the job's output; or what happened to the job, from its submission to its end."""

    ALL = "all"
    OUTPUT = "output"
    LIFECYCLE = "lifecycle"


KINDS: Final[Mapping[Choice, tuple[str, ...]]] = MappingProxyType(
    {
        Choice.ALL: (),
        Choice.OUTPUT: OUTPUT_KINDS,
        Choice.LIFECYCLE: tuple(kind for kind in EVENT_KINDS if kind not in _DETAILS),
    }
)


def kinds_of(choice: Choice | None, words: Sequence[str] | None) -> tuple[str, ...]:
    """Parse the kinds of `--events`, or those of `--event-filter`, such as `OUTPUT,process-end`; none: all kinds.

    Raises `OperatorError`: an unknown kind, or both options.
    """
    if choice is not None:
        if words:
            raise OperatorError("--events and --event-filter both choose events: leave one of them out")
        return KINDS[choice]
    kinds = [word.strip().upper().replace("-", "_") for word in ",".join(words or ()).split(",") if word.strip()]
    wrong = [kind for kind in kinds if kind not in EVENT_KINDS]
    if wrong or (words and not kinds):
        raise OperatorError(
            f"--event-filter {(wrong or ['is empty'])[0]}: the kinds of events are {', '.join(EVENT_KINDS)}"
        )
    return tuple(dict.fromkeys(kinds))
