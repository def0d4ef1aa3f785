"""Products that lie, each in one way: what the simulation must find, or it proves nothing.

Each mutant takes one promise out of the production classes. `python -m tests.simulation --mutants` runs each until
the first seed whose history is against a law, and fails when `SEEDS_MAX` seeds have not shown it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Final

import anyio

from airunner.agent.leases import health
from airunner.agent.leases.heldlease import HeldLease
from airunner.broker import announcer
from airunner.broker.ledger import Ledger
from airunner.broker.store.contract import Applied, Command
from airunner.broker.store.quotas import Quotas
from airunner.broker.store.sqlite import endings
from airunner.broker.store.sqlite import log as store_log
from airunner.broker.store.sqlite import store as sqlite
from airunner.broker.store.sqlite.log import Log
from airunner.broker.store.sqlite.store import SqliteStore
from airunner.protocol import reconnect as retry
from airunner.protocol.errors import NotFound
from airunner.protocol.messages import EventBatch
from airunner.protocol.requestsize import REQUEST_BYTES_MAX, RequestSize
from tests.simulation import torn, world
from tests.simulation.machine import Machine
from tests.simulation.network import SimDealer

SEEDS_MAX: Final = 200


def without_the_fence() -> None:
    """Whoever names a job may speak for its attempt, however old his own is."""

    def holder(self: Log, tenant: str, job_id: str, attempt: int, task_token: bytes) -> store_log.Holder:
        del attempt, task_token
        columns = ", ".join(store_log.Holder._fields)
        found = store_log.fetch_one(
            self._connection,
            store_log.Holder,
            f"SELECT {columns} FROM job WHERE job_id = ? AND tenant = ?",
            (job_id, tenant),
        )
        if found is None:
            raise NotFound
        return found

    Log.holder = holder
    anybody = "(1 OR attempt = ? OR token_hash = ?)"
    endings._HELD = endings._HELD.replace("attempt = ? AND token_hash = ?", anybody)
    store_log._EXTEND = store_log._EXTEND.replace("attempt = ? AND token_hash = ?", anybody)


def reply_before_commit() -> None:
    """What is told is only committed when the next batch comes."""
    stage = SqliteStore.stage

    def lazily(self: SqliteStore, commands: Sequence[Command], now_ms: int) -> Applied:
        connection = self._connection
        if not isinstance(connection, _Lazy):
            connection = self._connection = _Lazy(connection)
        connection.catch_up()
        return stage(self, commands, now_ms)

    SqliteStore.stage = lazily


class _Lazy:
    """A connection that says of a COMMIT that it was done."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._owed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statements: str, bindings: Any = None) -> Any:
        if statements == "COMMIT":
            self._owed = True
            return None
        return self._connection.execute(statements, bindings)

    def catch_up(self) -> None:
        if self._owed:
            self._owed = False
            self._connection.execute("COMMIT")


def without_dedup() -> None:
    """A batch of events that is sent again is stored again."""
    publish = Log.publish

    def blindly(self: Log, tenant: str, batch: EventBatch, quotas: Quotas, *, last: bool = False) -> Any:
        holder = self.holder(tenant, batch.job_id, batch.attempt, batch.task_token)
        again = EventBatch(
            job_id=batch.job_id,
            attempt=batch.attempt,
            task_token=batch.task_token,
            first_index=max(batch.first_index, holder.next_index),
            count=batch.count,
            events=batch.events,
        )
        return publish(self, tenant, again, quotas, last=last)

    Log.publish = blindly


def lease_without_deadline_check() -> None:
    """A lease ends whenever the broker looks, due or not."""
    endings._EXPIRED = endings._EXPIRED.replace("deadline_ms <= ?", "? IS NOT NULL")
    endings._DUE = endings._DUE.replace("deadline_ms <= ?", "? IS NOT NULL")


def synchronous_normal() -> None:
    """A commit is in the page cache and may wait there."""
    prepare = sqlite.prepare

    def hastily(connection: Any) -> None:
        prepare(connection)
        connection.execute("PRAGMA synchronous = normal")

    torn.prepare = hastily


def deadline_from_after_the_reply() -> None:
    """An agent counts its lease from when it heard of it, and not from when it asked."""
    renew = HeldLease.renew

    def late(self: HeldLease, asked_s: float) -> None:
        renew(self, max(asked_s, anyio.current_time()))

    HeldLease.renew = late


def leases_on_the_monotonic_clock() -> None:
    """A lease is measured on a clock that stands still while the machine sleeps, by the agent and by its keepers."""
    Machine.boot_s = Machine.monotonic_s


def megabytes_whatever_the_link() -> None:
    """Requests are always large, and only whole messages are signs of life; here every link is slow."""
    world.SLOW_SHARE = 1.0
    RequestSize.answered = RequestSize.broken = lambda self, *_: setattr(self, "bytes_max", REQUEST_BYTES_MAX)
    retry.HIDDEN_BYTES_MAX = 0
    SimDealer.progress = lambda _: 0


def refusals_count_as_lost_agents() -> None:
    """A machine that is out of processes counts for one that is lost."""
    health.counts = lambda *_, **__: True


def renewals_refused_when_full() -> None:
    """A full disk takes nothing at all, be it what keeps or ends a job."""

    async def nothing(self: Ledger, *_: object) -> None:
        self._disk.full(kept=False)

    Ledger._store_least = nothing


def long_runs_published_live() -> None:
    """What waits for a subscriber that does not read is as large as what jobs write."""
    announcer.LIVE_BYTES_MAX = 1 << 30


MUTANTS: Final[MappingProxyType[str, tuple[Callable[[], None], str]]] = MappingProxyType(
    {
        "without-the-fence": (without_the_fence, "both"),
        "reply-before-commit": (reply_before_commit, "both"),
        "without-dedup": (without_dedup, "both"),
        "lease-without-deadline-check": (lease_without_deadline_check, "both"),
        "deadline-from-after-the-reply": (deadline_from_after_the_reply, "both"),
        "leases-on-the-monotonic-clock": (leases_on_the_monotonic_clock, "both"),
        "megabytes-whatever-the-link": (megabytes_whatever_the_link, "both"),
        "refusals-count-as-lost-agents": (refusals_count_as_lost_agents, "both"),
        "renewals-refused-when-full": (renewals_refused_when_full, "both"),
        "long-runs-published-live": (long_runs_published_live, "both"),
        "synchronous-normal": (synchronous_normal, "sqlite"),
    }
)
"""Each mutant, and the kind of disk on which its lie can show."""
