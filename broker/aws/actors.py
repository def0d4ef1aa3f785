"""Actors of a broker on AWS: makes those for which it has lines, and connects them with its other actors."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import anyio

from airunner.broker.aws.opening import Lines
from airunner.broker.aws.outbox import Outbox
from airunner.broker.aws.submissions import Submissions
from airunner.broker.aws.tickets import Looks, Tickets
from airunner.broker.clock import Clock
from airunner.broker.counts import Counts
from airunner.broker.fairqueue import FairQueue
from airunner.broker.health import Health
from airunner.broker.inbox import ToGateway
from airunner.broker.store.contract import Engine
from airunner.broker.store.quotas import Quotas
from airunner.broker.store.rows import Changes, QueueKey
from airunner.transport.ports import Edges


class Surroundings(NamedTuple):
    """Surroundings of the actors: other actors of the broker with the id `broker`, and what all of them share."""

    ledger: FairQueue
    gateway: ToGateway
    clock: Clock
    edges: Edges
    counts: Counts
    health: Health
    quotas: Quotas
    broker: str


def no_looks(_queues: Collection[QueueKey] | None) -> None:
    """Make no queue ready: the broker is in no fleet, so no request waits here for what others do."""


class AwsActors:
    """Actors on AWS: Tickets, Submissions and Outbox, each if there is a line for it.

    `gateway` is what the Ledger sends its responses to; `looks` makes queues ready at the bus, once there is one.
    """

    def __init__(self, lines: Lines, engine: Engine, around: Surroundings) -> None:
        self._tickets: Tickets | None = None
        self._outbox: Outbox | None = None
        self._submissions: Submissions | None = None
        self.gateway = around.gateway
        self.looks: Looks = no_looks
        random = around.edges.random
        if lines.bells is not None:
            self._tickets = Tickets(
                *lines.bells,
                around.ledger,
                self._look,
                around.clock,
                around.broker,
                around.counts,
                around.health,
                random,
            )
        if lines.submissions is not None:
            self.gateway = self._submissions = Submissions(
                lines.submissions,
                around.ledger,
                around.gateway,
                lines.submitters,
                around.quotas,
                around.edges,
                around.counts,
                around.health,
                lines.say,
            )
        if lines.events is not None:
            self._outbox = Outbox(engine, *lines.events, around.counts, around.health, random, lines.say)

    def noting(self, feed: Callable[[Changes], None]) -> Callable[[Changes], None]:
        """Have the actors note the changes of each batch too, before `feed` gets them."""
        notes = [actor.note for actor in (self._tickets, self._outbox) if actor is not None]
        if not notes:
            return feed

        def note(changes: Changes) -> None:
            for each in (*notes, feed):
                each(changes)

        return note

    def _look(self, queues: Collection[QueueKey] | None) -> None:
        self.looks(queues)

    def ring(self, queues: Collection[QueueKey]) -> None:
        """Ring the bell for queues that have become ready."""
        if self._tickets is not None:
            self._tickets.ring(queues)

    def adopted(self) -> None:
        """Look for events that a dead broker has left, whose jobs this one has adopted."""
        if self._outbox is not None:
            self._outbox.look()

    async def run(self) -> None:
        """Run the actors until cancelled."""
        async with anyio.create_task_group() as group:
            for actor in (self._tickets, self._submissions, self._outbox):
                if actor is not None:
                    group.start_soon(actor.run, name=type(actor).__name__)
