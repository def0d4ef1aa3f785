"""The engine of one broker on the simulated server that several brokers share; how a trip gets there is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from airunner.broker.store.contract import Identity, Waiting
from airunner.broker.store.rows import BrokerRow, Changes, JobRow, Keys, Loaded, QueueKey
from tests.simulation.shared import Answer, Done, Server, Transaction, Trip
from tests.simulation.sharedrows import Deed, Rows, SharedTables

T = TypeVar("T")


class Line(Protocol):
    """Connection to the server."""

    def ask(self, transaction: Transaction, trip: Trip[T], *, ends: bool) -> T:
        """Make a trip; `ends`: it ends the transaction.

        Raises what the trip raises, `StoreAway`, and if it ends the transaction `StoreUnsure`.
        """
        ...

    def roll_back(self, transaction: Transaction) -> None:
        """Undo a transaction, at the latest when the next begins."""
        ...

    def connect(self) -> None:
        """Connect again. Raises `StoreAway`."""
        ...


class Direct:
    """No line at all: a trip that has to wait would do so for ever."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def ask(self, transaction: Transaction, trip: Trip[T], *, ends: bool) -> T:
        del ends
        answers: list[T | Exception] = []
        self._server.run(transaction, trip, answers.append)
        (answer,) = answers
        if isinstance(answer, Exception):
            raise answer
        return answer

    def roll_back(self, transaction: Transaction) -> None:
        self._server.abort(transaction)

    def connect(self) -> None:
        """It never ends."""


class SharedEngine(Rows):
    """See `Engine`."""

    remote = True

    def __init__(self, server: Server, line: Line, identity: Identity) -> None:
        super().__init__(SharedTables())
        self._server = server
        self._line = line
        self.broker = identity.broker
        self.ready_seq = 0
        self._due_ms: int | None = None
        self._epoch = 0
        self._transaction = Transaction(self.broker, 0)
        self._answer = Answer(SharedTables())
        self._deeds: list[tuple[Deed, object]] = []
        self._changes = Changes()
        self._renews = False
        done = line.ask(self._transaction, server.register(self._transaction, identity), ends=True)
        self._epoch = done.epoch
        self._end(done)

    def begin(self) -> None:
        if self._transaction.open:
            self._line.roll_back(self._transaction)
        self._transaction = Transaction(self.broker, self._epoch)
        self._deeds, self._changes, self._renews = [], Changes(), False

    def renew_all(self, now_ms: int) -> None:
        del now_ms  # it is the batch's
        self._renews = True

    def load(self, keys: Keys) -> Loaded:
        trip = self._server.first(self._transaction, keys, renews=self._renews)
        self._answer = self._line.ask(self._transaction, trip, ends=False)
        self._now = self._answer.tables
        self.ready_seq = self._now.brokers[self.broker].ready_seq
        loaded = super().load(keys)
        loaded.numbers = self._answer.numbers
        loaded.brokers = self.list_brokers() if keys.fleet else []
        loaded.adopted = set(self._answer.adopted)
        return loaded

    def waiting(self, wanted: Mapping[QueueKey, int]) -> Waiting:
        found = {key: self._answer.waiting[key][:most] for key, most in wanted.items()}
        short = {key for key, most in wanted.items() if len(found[key]) < most}
        jobs = [copy(self._now.jobs[number]) for numbers in found.values() for number in numbers]
        return Waiting(jobs, locked=self._answer.locked & short)

    def due(self, now_ms: int, limit: int) -> list[JobRow]:
        del now_ms, limit
        return [copy(self._now.jobs[number]) for number in self._answer.due]

    def next_due_ms(self) -> int | None:
        return self._due_ms

    def save(self, changes: Changes) -> None:
        self._changes = changes
        self._do(Rows.write, changes, self.broker)

    def remove_logs(self, segments_max: int, bytes_max: int) -> tuple[dict[str, int], bool]:
        return self._do(Rows.remove_logs, segments_max, bytes_max)

    def remove_records(self, answered_before_ms: int, limit: int) -> dict[str, int]:
        return self._do(Rows.remove_records, answered_before_ms, limit)

    def _do(self, deed: Callable[..., T], *given: Any) -> T:
        came_to = deed(Rows(self._now), *given)
        self._deeds.append((lambda rows: deed(rows, *given), came_to))
        return came_to

    def commit(self) -> None:
        trip = self._server.second(self._transaction, self._deeds, self._changes)
        self._end(self._line.ask(self._transaction, trip, ends=True))

    def _end(self, done: Done) -> None:
        self.ready_seq, self._due_ms = done.ready_seq, done.next_due_ms

    @contextmanager
    def reading(self) -> Iterator[None]:
        self.begin()
        self.load(Keys())
        yield
        self.commit()

    def reconnect(self) -> None:
        self._line.connect()

    def retire(self) -> None:
        self.begin()
        self._end(self._line.ask(self._transaction, self._server.retire(self._transaction), ends=True))

    def brokers(self, tenant: str, queues: frozenset[str] | None) -> list[BrokerRow]:
        owners = [
            job.broker
            for job in self._now.jobs.values()
            if job.tenant == tenant and job.agent is not None and job.deadline_ms is not None
            if queues is None or job.queue in queues
        ]
        return [replace(row, leases=owners.count(row.broker)) for row in self.list_brokers()]
