"""Store: loads the rows of a batch, calls the deciders of its commands, and saves the changes, in one transaction.

- A batch is atomic: either all of it is on disk once `commit` has returned, or nothing.
- A batch is deterministic: the caller provides instants, ids and keys.
- A command that is refused changes nothing and does not affect the other commands. Commands take effect in their order.
- When the engine finds that a job's row has changed since it was loaded, or is damaged (`Moved`), the batch is loaded
  and decided again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from airunner.broker.lifecycle.commands import EXPIRE_MAX, Applied, Command, Done, Expire, RenewAll, TenantRequest
from airunner.broker.lifecycle.decide import decide, read
from airunner.broker.lifecycle.ending import is_late
from airunner.broker.lifecycle.kept import KeptRows
from airunner.broker.lifecycle.submitting import load_retried
from airunner.broker.lifecycle.world import Undecodable, World
from airunner.broker.requests import kind_of
from airunner.broker.store.contract import Changes, Engine, Keys, Moved, QueueKey
from airunner.broker.store.needs import facts_of, meets
from airunner.protocol.errors import Busy
from airunner.protocol.requests import CancelJob, DequeueJob, RetryJob, UpdateQueue

TRIES_MAX: Final = 8  # times that a batch is decided, before it is refused with `busy` because its jobs keep changing
_NOTHING: Final = Changes()


class Store:
    """Store of the queue and the event log, over an `engine`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._kept = KeptRows(alone=engine.alone)

    @property
    def batch_max(self) -> int:
        """Maximum commands in a batch."""
        return self.engine.batch_max

    def apply(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Apply a batch as one transaction: `stage` and `commit`. Raises `NoSpace`, `Busy`: nothing is stored."""
        applied = self.stage(commands, now_ms)
        self.commit()
        return applied

    def stage(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Stage a batch: do all of `apply` but the commit; the outcomes are valid once `commit` has returned.

        No other method may be called before `commit`. Raises `NoSpace`, `Busy`: nothing is stored.
        """
        assert len(commands) <= self.batch_max
        tries = 0
        while tries < TRIES_MAX:
            try:
                return self._stage(commands, now_ms)
            except Undecodable as undecodable:
                self.engine.set_aside(undecodable.job_id)
            except Moved:
                tries += 1
        raise Busy

    def commit(self) -> None:
        """Commit the staged batch to disk. Raises `NoSpace`: nothing is stored."""
        self.engine.commit()
        self._kept.commit()

    def read(self, commands: Sequence[TenantRequest]) -> list[Done]:
        """Answer read requests; only between two batches."""
        return [read(self.engine, command) for command in commands]

    def write_back(self) -> None:
        """Write the journal back, as far as there is room, to reuse its disk space; only between two batches."""
        self.engine.write_back()

    def close(self) -> None:
        """Close the store; it can be opened again."""
        self.engine.close()

    def _stage(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Try once to stage a batch. Raises `Moved`, `Undecodable`: it has to be tried again."""
        engine = self.engine
        engine.begin()
        self._kept.begin()
        if RenewAll in map(type, commands):
            engine.renew_all(now_ms)
            self._kept.forget()
        world = self._load(commands, now_ms)
        done = [decide(world, engine, command) for command in commands]
        changes = world.changes()
        engine.save(changes)
        self._kept.save(changes)
        only_requests = {TenantRequest}.issuperset(map(type, commands))  # the engine writes for others
        if not only_requests or not self._kept.knows_due:
            self._kept.set_due(engine.next_due_ms())
        return Applied(done, self._kept.due_ms, wrote=not only_requests or changes != _NOTHING)

    def _load(self, commands: Sequence[Command], now_ms: int) -> World:
        engine = self.engine
        keys = Keys()
        requests = [command for command in commands if isinstance(command, TenantRequest)]
        kinds = {type(command.request) for command in requests}
        for command in requests:
            kind_of(command.request).load(keys, command, command.request)
        found = self._kept.find(keys)
        loaded = engine.load(keys)
        self._kept.add(keys, loaded, found)
        world = World(loaded, now_ms, engine.boxes, engine.segments)
        if RetryJob in kinds:
            retried = Keys()
            for command in requests:
                if isinstance(command.request, RetryJob):
                    load_retried(retried, world, command, command.request)
            world.adopt_queues(engine.load(retried))
        if Expire in map(type, commands):
            world.adopt_due(engine.due(now_ms, EXPIRE_MAX))
        if kinds & {DequeueJob, UpdateQueue}:
            late = sum(is_late(world, job) for job in world.due())
            wanted = _wanted(requests, loaded.kinds, late)
            world.adopt_waiting(engine.waiting(wanted), wanted)
        return world


def _wanted(requests: Sequence[TenantRequest], kinds: dict[QueueKey, int], late: int) -> dict[QueueKey, int]:
    """Count how many waiting jobs of each queue and needs the batch may lease, end, or report as ready.

    The batch ends `late` jobs and those that it cancels, which may be the first of any queue.
    """
    wanted: Counter[QueueKey] = Counter()
    ended = late
    needs_of: dict[tuple[str, str], list[QueueKey]] = {}
    for key in kinds:
        needs_of.setdefault((key.tenant, key.queue), []).append(key)
    for command in requests:
        tenant = command.tenant
        match command.request:
            case DequeueJob() as request:
                facts = facts_of(request)
                for queue in dict.fromkeys(request.queues):
                    wanted[QueueKey(tenant, queue)] += request.slots
                    for key in needs_of.get((tenant, queue), ()):
                        if meets(facts, key.needs):
                            wanted[key] += request.slots
            case UpdateQueue() as request:
                for key in (QueueKey(tenant, request.queue), *needs_of.get((tenant, request.queue), ())):
                    wanted[key] += 1
            case CancelJob():
                ended += 1
            case _:
                pass
    return {key: count + ended for key, count in wanted.items()} if ended else wanted
