"""Entries of the Ledger's batches: requests (parked ones too), commands of the broker's actors, and other work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from airunner.broker.inbox import BetweenBatches, Pending, Response
from airunner.broker.lifecycle.commands import (
    Adopt,
    Beat,
    Command,
    Expire,
    FollowUp,
    JanitorCommand,
    News,
    RenewAll,
    StoreReply,
)
from airunner.broker.parking import Parked
from airunner.broker.requests import Execution, kind_of
from airunner.broker.store.needs import needs_of
from airunner.broker.store.rows import QueueKey
from airunner.protocol.requests import EnqueueJob, EnqueueJobWithStdin, RemoveSecret, SetSecret, UpdateQueue

ToApply = Pending | Expire | RenewAll | JanitorCommand | Beat | Adopt | FollowUp | Parked
Entry = ToApply | BetweenBatches

ALONE: Final = 2**20  # price of a batch of its own: a change of a queue waits until no other broker uses the queue
_ALONE: Final = (UpdateQueue, SetSecret, RemoveSecret)


def command_of(entry: ToApply) -> Command:
    """Return the command of an entry for the store."""
    match entry:
        case Pending(command=command):
            return command
        case Parked(pending=pending):
            return pending.command
        case _:
            return entry


def respond(pending: Pending, reply: StoreReply, news: News | None = None) -> Response:
    """Make the response to a request whose peer waits for it; `news` of its command: None: it has none."""
    assert pending.peer is not None, "no peer waits for a reply"
    repeated, deadline_ms = (False, None) if news is None else (news.repeated, news.deadline_ms)
    return Response(pending.peer, pending.command, reply, pending.key, pending.revision, repeated, deadline_ms)


def price_of(entry: Entry) -> int:
    """Return the price of an entry: its expected work, in units of some 100 µs; or `ALONE`."""
    if not isinstance(entry, Pending):
        return 1
    return ALONE if entry.command.request.__class__ in _ALONE else entry.price


def execution_of(entry: ToApply) -> Execution:
    """Return how an entry is executed."""
    return kind_of(entry.command.request).execution if isinstance(entry, Pending) else Execution.CHANGE


def jobs_of(batch: Iterable[Entry]) -> Iterator[QueueKey]:
    """List the queue and needs of each job that a batch may add and that may be leased at once."""
    for entry in batch:
        if isinstance(entry, Pending) and isinstance(entry.command.request, EnqueueJob | EnqueueJobWithStdin):
            for job in entry.command.request.jobs:
                if job.not_before_ms is None:
                    yield QueueKey(entry.command.tenant, job.queue, needs_of(job))
