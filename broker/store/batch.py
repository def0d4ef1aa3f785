"""Store: loads the rows of a batch, calls the deciders of its commands, and saves the changes, in one transaction.

- A batch is atomic: either all of it is on disk once `commit` has returned, or nothing. If the engine's transactions
  are bounded, this holds for each of its `portions` instead.
- A batch is deterministic: the caller provides instants, ids and keys.
- A command that is refused changes nothing and does not affect the other commands. Commands take effect in their order.
- When the engine finds that a job's row has changed since it was loaded, or is damaged (`Moved`), the batch is loaded
  and decided again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from airunner.broker.lifecycle.commands import (
    EXPIRE_MAX,
    Adopt,
    Applied,
    Attach,
    Beat,
    Command,
    Done,
    Expire,
    FindGone,
    FollowEnd,
    News,
    RenewAll,
    Retain,
    TenantRequest,
    Timings,
)
from airunner.broker.lifecycle.decide import decide, read
from airunner.broker.lifecycle.dependencies import load_attached, load_followed
from airunner.broker.lifecycle.ending import is_late
from airunner.broker.lifecycle.kept import KeptRows
from airunner.broker.lifecycle.retention import sweep_of
from airunner.broker.lifecycle.world import Undecodable, World
from airunner.broker.requests import kind_of
from airunner.broker.store.contract import Engine, Moved, StoreAway, StoreUnsure
from airunner.broker.store.needs import meets
from airunner.broker.store.portions import divide, merge
from airunner.broker.store.rows import Changes, Keys, QueueKey
from airunner.protocol.coding import refusal
from airunner.protocol.errors import Busy, NoSpace

TRIES_MAX: Final = 8  # times that a batch is decided, before it is refused with `busy`: its jobs change, or are damaged
_NOTHING: Final = Changes()


class Store:
    """Store of the queue and the event log, over an `engine`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._kept = KeptRows(alone=engine.alone)
        self._began_ms = 0

    @property
    def batch_max(self) -> int:
        """Maximum commands in a batch."""
        return self.engine.batch_max

    def apply(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Apply a batch as one transaction, or in portions if the engine's are bounded: `stage` and `commit` of each.

        Raises `NoSpace`, `Busy`: nothing is stored. `StoreAway`, `StoreUnsure`: `reconnect`, and apply it again.
        """
        if self.engine.rows_max is not None:
            return self._apply_portions(commands, now_ms, self.engine.rows_max)
        return self._try(partial(self._apply, commands, now_ms))

    def _apply_portions(self, commands: Sequence[Command], now_ms: int, rows_max: int) -> Applied:
        """Apply a batch in portions. After the first one is stored, `NoSpace` and `Busy` are outcomes of commands."""
        assert self.engine.bytes_max is not None, "an engine that bounds rows and not bytes"
        self._began_ms = self.engine.steady_ms()
        portions = divide(commands, rows_max, self.engine.bytes_max)
        applied: list[Applied] = []
        for portion in portions:
            try:
                applied.append(self._try(partial(self._apply, [part.command for part in portion], now_ms)))
            except (NoSpace, Busy) as refused:
                if not applied:
                    raise
                done = [Done(refusal(refused), News(), cost=0)] * len(portion)
                applied.append(replace(applied[-1], done=done, wrote=False, timings=Timings(), changes=None))
            except StoreAway as away:
                if not applied:
                    raise
                raise StoreUnsure(str(away)) from away
        return applied[0] if len(portions) == 1 else merge(commands, portions, applied)

    def _apply(self, commands: Sequence[Command], now_ms: int) -> Applied:
        applied = self._stage(commands, now_ms)
        self.commit()
        if not self.engine.remote:
            return applied
        return replace(applied, next_due_ms=self.engine.next_due_ms(), ready_seq=self.engine.ready_seq)

    def stage(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Stage a batch: do all of `apply` but the commit; the outcomes are valid once `commit` has returned.

        No other method may be called before `commit`. Raises `NoSpace`, `Busy`: nothing is stored.
        """
        assert len(commands) <= self.batch_max
        assert self.engine.rows_max is None, "a batch that may have to be divided is applied"
        assert not self.engine.remote, "a batch over a network is applied outside of the event loop"
        return self._try(partial(self._stage, commands, now_ms))

    def _try(self, attempt: Callable[[], Applied]) -> Applied:
        for _ in range(TRIES_MAX):
            try:
                return attempt()
            except Undecodable as undecodable:
                self.engine.set_aside(undecodable.job_id)
            except Moved:
                continue
        raise Busy

    def commit(self) -> None:
        """Commit the staged batch to disk. Raises `NoSpace`: nothing is stored."""
        self.engine.commit()
        self._kept.commit()

    def read(self, commands: Sequence[TenantRequest]) -> list[Done]:
        """Answer read requests; only between two batches. Raises `StoreAway`."""
        with self.engine.reading():
            return [read(self.engine, command) for command in commands]

    @property
    def remote(self) -> bool:
        """Whether `apply` and `read` are to be called outside of the event loop, and `stage` is not."""
        return self.engine.remote

    @property
    def locked_ms(self) -> int:
        """For how long not to look again for jobs that the last batch has found locked, at least."""
        return self.engine.locked_ms

    def reconnect(self) -> None:
        """Connect again after `StoreAway`. Raises `StoreAway`, `Fenced`, `OperatorError`."""
        self.engine.reconnect()

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
        if not engine.alone:
            changes.ready = any(outcome.news.ready for outcome in done)
        engine.save(changes)
        self._kept.save(changes)
        only_requests = {TenantRequest}.issuperset(map(type, commands))  # the engine writes for others
        if not engine.remote and not (only_requests and self._kept.knows_due):
            self._kept.set_due(engine.next_due_ms())
        wrote = not only_requests or changes != _NOTHING
        return Applied(done, self._kept.due_ms, wrote, timings=world.timings, changes=changes)

    def _load(self, commands: Sequence[Command], now_ms: int) -> World:
        engine = self.engine
        keys = _keys(commands, now_ms)
        found = self._kept.find(keys)
        loaded = engine.load(keys)
        self._kept.add(keys, loaded, found)
        bounded = engine.rows_max is not None
        decided_ms = now_ms + engine.steady_ms() - self._began_ms if bounded else now_ms
        world = World(loaded, decided_ms, engine)
        if keys.due:
            world.adopt_due(engine.due(now_ms, keys.due))
        if keys.wanted:
            wanted = _wanted(keys, loaded.kinds, sum(is_late(world, job) for job in world.due()))
            world.adopt_waiting(engine.waiting(wanted), wanted)
        return world


def _keys(commands: Sequence[Command], now_ms: int) -> Keys:
    """List the keys of all rows on which the batch may be decided."""
    keys = Keys(now_ms=now_ms)
    for command in commands:
        match command:
            case TenantRequest():
                kind_of(command.request).load(keys, command, command.request)
            case Expire():
                keys.due = EXPIRE_MAX
            case Retain():
                keys.sweep = sweep_of(command, now_ms)
            case FindGone(tenant=tenant, job_ids=job_ids):
                keys.jobs.update((tenant, job_id) for job_id in job_ids)
            case Beat():
                keys.fleet = True
            case Adopt(seen=seen):
                keys.adopted.add(seen)
            case FollowEnd():
                load_followed(keys, command)
            case Attach():
                load_attached(keys, command)
            case RenewAll():
                pass
    return keys


def _wanted(keys: Keys, kinds: dict[QueueKey, int], late: int) -> dict[QueueKey, int]:
    """Count how many waiting jobs of each queue and needs the batch may lease, end, or report as ready.

    The batch ends `late` jobs and those that it cancels, which may be the first of any queue.
    """
    wanted: Counter[QueueKey] = Counter()
    needs_of: dict[tuple[str, str], list[QueueKey]] = {}
    for key in kinds:
        needs_of.setdefault((key.tenant, key.queue), []).append(key)
    for tenant, queue, facts, jobs in keys.wanted:
        wanted[QueueKey(tenant, queue)] += jobs
        for key in needs_of.get((tenant, queue), ()):
            if facts is None or meets(facts, key.needs):
                wanted[key] += jobs
    ended = keys.ended + late
    return {key: count + ended for key, count in wanted.items()} if ended else wanted
