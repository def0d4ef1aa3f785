"""An engine of dicts behind a line that is cut where a test says so."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from enum import Enum

from airunner.broker.store.contract import Fenced, StoreAway, StoreUnsure, Waiting
from airunner.broker.store.rows import Changes, Keys, Loaded, QueueKey
from tests.conformance.memory import MemoryEngine


class Cut(Enum):
    """Where the line is cut: before the batch is there, while it is decided, or in its commit, before or after it."""

    LOADING = "loading"
    SAVING = "saving"
    COMMITTING = "committing"
    COMMITTED = "committed"
    READING = "reading"


class RemoteEngine(MemoryEngine):
    """See `Engine`; `cuts`: where the next batches are cut off, one after another."""

    remote = True
    ready_seq = 0
    broker = "0123456789ab"

    def __init__(self) -> None:
        super().__init__()
        self.cuts: list[Cut] = []
        self.reconnects_failing = 0.0  # how often it fails before the line is there again
        self.fenced = False
        self.locked: frozenset[QueueKey] = frozenset()
        self.steps: list[str] = []
        self.adopts: set[str] = set()  # brokers that have died
        self._there = True

    def _pass(self, point: Cut) -> None:
        assert self._there, "it is used before it is connected again"
        if self.cuts[:1] == [point]:
            self.cuts.pop(0)
            self._there = False
            self._now = self._saved
            kind = StoreUnsure if point in (Cut.COMMITTING, Cut.COMMITTED) else StoreAway
            raise kind(f"cut while {point.value}")

    def reconnect(self) -> None:
        self.steps.append("reconnect")
        if self.fenced:
            raise Fenced("another broker has taken over; start this one again")
        self.reconnects_failing -= 1
        if self.reconnects_failing >= 0:
            raise StoreAway("still no way there")
        self._there = True

    def renew_all(self, now_ms: int) -> None:
        self.steps.append("renew")
        super().renew_all(now_ms)

    def load(self, keys: Keys) -> Loaded:
        self._pass(Cut.LOADING)
        loaded = super().load(keys)
        loaded.adopted = self.adopts & {seen.broker for seen in keys.adopted}
        return loaded

    def waiting(self, wanted: Mapping[QueueKey, int]) -> Waiting:
        found = super().waiting({key: jobs for key, jobs in wanted.items() if key not in self.locked})
        return found._replace(locked=self.locked)

    def save(self, changes: Changes) -> None:
        self._pass(Cut.SAVING)
        super().save(changes)

    def commit(self) -> None:
        self._pass(Cut.COMMITTING)
        super().commit()
        self.steps.append("commit")
        self._pass(Cut.COMMITTED)

    @contextmanager
    def reading(self) -> Generator[None]:
        self._pass(Cut.READING)
        self.steps.append("read")
        yield
