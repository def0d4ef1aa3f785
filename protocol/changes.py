"""Job changes of a tenant: the messages from which a list of jobs moves by itself, and how a lost one is noticed.

The broker publishes them live on *change streams*, which WatchTenant names: one for all of a tenant's jobs, and one for
each queue. They are hints of what a list would show now, and never the only copy: a client that misses one reads the
list again.

Each broker numbers its messages of a stream 1, 2, 3, …; a reminder repeats the last number. `Numbers` is pure.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from airunner.protocol.job import JobState, JobSummary
from airunner.protocol.names import Natural
from airunner.protocol.replies import QueueMode

SENDER_BYTES: Final = 8  # random bytes that a broker draws when it starts
REMINDER_S: Final = 5.0  # seconds between two reminders of a stream that has listeners
SILENCE_S: Final = 3 * REMINDER_S  # without any message: the broker may be gone, or its live events may not arrive
SENDERS_MAX: Final = 64  # brokers whose numbers are remembered, those that have ended included


class JobChange(JobSummary, frozen=True, kw_only=True, omit_defaults=True):
    """Job as a list shows it after a change; `was`: its state before, None if it was submitted just now.

    It has the details. If `command` is empty, only the fields of the job's course are here: its name, owner,
    repository, command and details, and how long it waited, are as they were.
    """

    was: JobState | None = None
    agent: str = ""


class JobChanges(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Message of a change stream: what one commit has changed, or a part of it; a reminder has changed nothing.

    If `left_out`, there were too many for messages; `submitted`, `started` and `ended` count those that are missing.
    """

    sender: Annotated[bytes, Meta(min_length=SENDER_BYTES, max_length=SENDER_BYTES)]
    number: Natural
    jobs: tuple[JobChange, ...] = ()
    modes: dict[str, QueueMode] = {}
    submitted: Natural = 0
    started: Natural = 0
    ended: Natural = 0
    left_out: bool = False

    @property
    def is_reminder(self) -> bool:
        """Whether it only repeats the last number."""
        return not (self.jobs or self.modes or self.left_out)


class Numbers:
    """Numbers of the messages that were received of one stream, by sender."""

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}

    def is_next(self, message: JobChanges) -> bool:
        """Record a message; False: something before it is missing, or was left out, so the list is to be read again."""
        last = self._last.pop(message.sender, 0)
        self._last[message.sender] = message.number
        if len(self._last) > SENDERS_MAX:
            del self._last[next(iter(self._last))]
        return message.number == last + (not message.is_reminder) and not message.left_out
