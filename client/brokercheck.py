"""Broker check: verifies the broker's own events of a log, which no agent has signed. Pure.

```
 JOB_SCHEDULED ──► WAITS ──JOB_LEASED──► RUNS ──JOB_RELEASED, JOB_EXPIRED──► LEFT ──► JOB_LEASED or JOB_SCHEDULED
                     │ cancelled, expired  │ what its agent has signed         │ cancelled, expired, agent-lost
                     └─────────────────────┴─────────► JOB_FINISHED ◄──────────┘
```

A job that waits for others is BLOCKED until JOB_UNBLOCKED, before it WAITS.

They stand in a possible order, and the broker alone says only what it alone can know: that a job was cancelled, has
expired, or that its agent was lost. COMPLETED, exit codes, signals and all other reasons need an agent's signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from msgspec.structs import replace

from airunner.client.attemptcheck import Body
from airunner.protocol.events import (
    EventBody,
    JobCancelRequested,
    JobExpired,
    JobFinished,
    JobLeased,
    JobReleased,
    JobScheduled,
    JobUnblocked,
    UnknownBody,
)
from airunner.protocol.job import Job, JobState, Reason, Result


class _Phase(Enum):
    """Phase of a job between two events, in words."""

    BLOCKED = "while the job waits for others"
    WAITS = "while the job waits"
    RUNS = "while an attempt runs"
    LEFT = "once the attempt was released or has expired"
    ENDED = "behind JOB_FINISHED"
    UNKNOWN = "behind an event that cannot be understood"


_BEFORE: Final[Mapping[type, frozenset[_Phase]]] = {
    JobScheduled: frozenset({_Phase.RUNS, _Phase.LEFT}),  # a retry
    JobUnblocked: frozenset({_Phase.BLOCKED}),
    JobLeased: frozenset({_Phase.WAITS, _Phase.LEFT}),
    JobReleased: frozenset({_Phase.RUNS}),
    JobExpired: frozenset({_Phase.RUNS}),
}
_AFTER: Final[Mapping[type, _Phase]] = {
    JobScheduled: _Phase.WAITS,
    JobUnblocked: _Phase.WAITS,
    JobLeased: _Phase.RUNS,
    JobReleased: _Phase.LEFT,
    JobExpired: _Phase.LEFT,
    JobFinished: _Phase.ENDED,
    UnknownBody: _Phase.UNKNOWN,
}
_IDLE: Final = (_Phase.BLOCKED, _Phase.WAITS, _Phase.LEFT)  # no attempt runs
_BROKERS: Final = frozenset({Reason.CANCELLED, Reason.EXPIRED, Reason.SKIPPED})  # the broker's alone
_KNOWN: Final = frozenset((*_BEFORE, JobCancelRequested, JobFinished))


class BrokerCheck:
    """Check of the broker's events of a job. Behind an event that is a fault or of an unknown kind any may stand."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._phase = _Phase.UNKNOWN
        self._unknown = 0  # events of kinds that are not known
        self._first_unknown = 0  # the sequence of the first

    def agents(self, body: Body) -> str:
        """Note an event of an agent; return why it is a fault, if it is one."""
        late = body is not None and self._phase in _IDLE
        why = f"an agent's event cannot stand here, {self._phase.value}" if late else ""
        self._phase = _Phase.UNKNOWN if late or body is None or isinstance(body, UnknownBody) else _Phase.RUNS
        return why

    def add(self, sequence: int, body: EventBody | UnknownBody, signed: Result | None) -> str:
        """Check an event of the broker; `signed`: the end that the agent of the attempt has signed.

        Returns why the event is a fault, if it is one.
        """
        if type(body) not in _KNOWN:
            self._first_unknown = self._first_unknown or sequence
            self._unknown += 1
        why = self._why(sequence, body, signed)
        after = _Phase.BLOCKED if isinstance(body, JobScheduled) and body.unmet else _AFTER.get(type(body), self._phase)
        self._phase = _Phase.UNKNOWN if why else after
        return why

    def _why(self, sequence: int, body: EventBody | UnknownBody, signed: Result | None) -> str:
        if (sequence == 1) != (isinstance(body, JobScheduled) and not body.retry):
            return "JOB_SCHEDULED begins a log"
        if isinstance(body, JobFinished):
            return self._why_not_finished(body, signed)
        if self._phase is _Phase.UNKNOWN:
            return ""
        if self._phase not in _BEFORE.get(type(body), _Phase):
            return f"{type(body).__struct_config__.tag} cannot stand here, {self._phase.value}"
        if isinstance(body, JobScheduled) and signed is not None and signed.state is not JobState.FAILED:
            return f"its agent has signed {_end_text(signed)}"
        return ""

    def _why_not_finished(self, body: JobFinished, signed: Result | None) -> str:
        said = Result(exit_code=body.exit_code, signal=body.signal, reason=body.reason)
        if self._phase is _Phase.RUNS and signed is not None and said != signed:
            return f"its agent has signed {_end_text(signed)}"
        if self._phase in _IDLE and not self._may_say(said):
            return f"no agent has signed {_end_text(said)}"
        shown = replace(self._job.result or Result(), usage=None)
        differs = self._job.state.terminal and (self._job.state, shown) != (body.state, said)
        if differs or body.state != said.state:
            return f"the job is shown as {self._job.state}, {_end_text(shown)}"
        return ""

    def _may_say(self, said: Result) -> bool:
        """Return whether the broker alone may say this of a job; a reason of a newer broker is one of its own."""
        if said.exit_code is not None or said.signal is not None or said.reason is None:
            return False
        lost = self._phase is _Phase.LEFT and said.reason is Reason.AGENT_LOST
        return lost or said.reason in _BROKERS or not said.known

    @property
    def unproven(self) -> list[str]:
        """What is said of the events of unknown kinds: nothing proves them."""
        if not self._unknown:
            return []
        first = f"event {self._first_unknown:,}"
        if self._unknown == 1:
            return [f"{first} is of a kind that this version does not know, and nothing proves it"]
        return [f"{self._unknown:,} events from {first} on are of kinds that this version does not know: not proven"]


def _end_text(end: Result) -> str:
    words = [str(end.reason or end.state)]
    words += [f"exit code {end.exit_code}"] if end.exit_code is not None else []
    words += [f"signal {end.signal}"] if end.signal is not None else []
    return ", ".join(words)
