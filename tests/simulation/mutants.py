"""Products that lie, each in one way: what the simulation must find, or it proves nothing.

Each mutant takes one promise out of the production classes. `python -m tests.simulation --mutants` runs each until
the first seed whose history is against a law, and fails when `SEEDS_MAX` seeds have not shown it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Final

from msgspec.structs import replace

from airunner.agent.leases import health
from airunner.agent.leases.heldlease import HeldLease
from airunner.agent.leases.renewer import Renewer
from airunner.agent.output import outbox
from airunner.broker import announcer
from airunner.broker.lifecycle import decide, dependencies, ending, publishing
from airunner.broker.lifecycle.commands import Applied, Command, TenantRequest
from airunner.broker.lifecycle.world import World as Batch
from airunner.broker.offload import Steps
from airunner.broker.peerwatch import PeerWatch
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import StoreUnsure
from airunner.broker.store.rows import JobRow
from airunner.broker.store.sqlite import opening
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.transactions import Transactions
from airunner.protocol import reconnect as retry
from airunner.protocol.dependencies import Ending
from airunner.protocol.errors import NoSpace
from airunner.protocol.message import LeaseRef
from airunner.protocol.replies import JobLease
from airunner.protocol.requests import EventBatch
from airunner.protocol.requestsize import REQUEST_BYTES_MAX, RequestSize
from tests.conformance.memory import MemoryEngine
from tests.simulation import world
from tests.simulation.machine import Machine, true_s
from tests.simulation.mutants_dynamodb import DYNAMODB_MUTANTS
from tests.simulation.network import SimDealer
from tests.simulation.shared import Server
from tests.simulation.sharedrows import Rows

SEEDS_MAX: Final = 40  # in which a lie of a broker that is alone is found
FLEET_SEEDS_MAX: Final = 200  # likewise where several brokers or their database have to meet in the one moment
FOR_EVER_MS: Final = 2**53


def without_the_fence() -> None:
    """Whoever names a job may speak for its attempt, however old his own is."""
    Batch.job_of = lambda self, tenant, lease: self.job(tenant, lease.job_id)


def reply_before_commit() -> None:
    """What is told is only committed when the next batch comes."""
    stage, commit = Store.stage, Store.commit
    owed: set[Store] = set()

    def lazily(self: Store, commands: Sequence[Command], now_ms: int) -> Applied:
        if self in owed:
            owed.discard(self)
            commit(self)
        return stage(self, commands, now_ms)

    def not_yet(self: Store) -> None:
        owed.add(self)

    Store.stage, Store.commit = lazily, not_yet


def without_dedup() -> None:
    """A batch of events that is sent again is stored again."""
    store = publishing._store

    def blindly(world: Batch, command: TenantRequest, batch: EventBatch, lasts: set[LeaseRef] | None) -> int:
        job = world.job_of(command.tenant, batch.lease)
        again = replace(batch, first_index=max(batch.first_index, job.next_index))
        return store(world, command, again, lasts)

    publishing._store = blindly


def lease_without_deadline_check() -> None:
    """A lease ends whenever the broker looks, due or not."""
    expire = decide.expire

    def hastily(batch: Batch) -> None:
        for job in batch.due():
            if job.deadline_ms is not None:
                job.deadline_ms = min(job.deadline_ms, batch.now_ms)
        expire(batch)

    decide.expire = hastily
    for engine in (SqliteEngine, MemoryEngine):
        engine.due = _all_of(engine.due)


def _all_of(due: Any) -> Any:
    return lambda self, _, limit: due(self, FOR_EVER_MS, limit)


def save_without_its_version_check() -> None:
    """What another broker has changed meanwhile is written over."""
    MemoryEngine.require_unmoved = lambda *_: None


def synchronous_normal() -> None:
    """A commit is in the page cache and may wait there."""
    opening._SETTINGS = tuple(
        setting.replace("synchronous = full", "synchronous = normal") for setting in opening._SETTINGS
    )


def deadline_from_after_the_reply() -> None:
    """An agent counts its lease, and each renewal, from when it heard of it, and not from when it asked."""
    hold, renew = Renewer.hold, HeldLease.renew

    def late(self: Renewer, lease: JobLease, asked_s: float, *, was_queued: bool) -> HeldLease:
        return hold(self, lease, max(asked_s, true_s()), was_queued=was_queued)

    def later(self: HeldLease, asked_s: float) -> None:
        renew(self, max(asked_s, true_s()))

    Renewer.hold, HeldLease.renew = late, later


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

    def nothing(self: Transactions, *_: object) -> None:
        self._disk.record_full(ends_stored=False)
        raise NoSpace

    Transactions._write_least = nothing


def long_runs_published_live() -> None:
    """What waits for a subscriber that does not read is as large as what jobs write."""
    announcer.LIVE_BYTES_MAX = outbox.LIVE_BYTES_MAX = 1 << 30  # so agents compress nothing, and all of it is published


def without_the_brokers_fence() -> None:
    """A broker that was taken for dead goes on."""
    Server.require_unfenced = lambda *_: None


def without_the_opening_write() -> None:
    """What changes nothing is answered from what is visible, whether or not a standby has got it."""
    Server.writes_always = lambda _: False


def asynchronous_standby() -> None:
    """A commit is answered before the standby has it: what an operator is warned of, and no broker can mend."""
    Server.synchronous = False


def unknown_commit_told_as_failed() -> None:
    """Where a connection ends in a commit, the broker says that nothing was done."""
    write = Transactions.write

    def hastily(self: Transactions, commands: Sequence[Command], now_ms: int) -> Steps[Applied]:
        try:
            return (yield from write(self, commands, now_ms))
        except StoreUnsure as unsure:
            raise NoSpace from unsure

    Transactions.write = hastily


def without_grant_rows() -> None:
    """Nobody else is kept from serving a DequeueJob that is being served."""
    claimed = Server.claimed
    Server.claimed = lambda self, keys: [lock for lock in claimed(self, keys) if lock[0] != "grant"]


def mode_read_without_lock() -> None:
    """A queue may be paused between the two trips of a lease."""
    Server.reads_modes_locked = lambda _: False


def expiry_of_anothers_lease() -> None:
    """A broker ends what is due by its own clock, also what another one owns."""
    Rows.ends = lambda *_: True


def hints_without_number() -> None:
    """Nobody misses a hint that was lost."""
    conclude = PeerWatch.conclude
    PeerWatch.conclude = lambda *given: replace(conclude(*given), unheard={})


def edges_lost() -> None:
    """A job that waits for another counts it, and the other does not know."""
    dependencies._add_edge = lambda *_: None


def unblocked_with_one_left() -> None:
    """Who waits for several jobs is let go before the last one has ended."""
    unblock = ending.unblock

    def early(batch: Batch, job: JobRow) -> None:
        if job.unmet == 1:
            job.unmet = 0
        unblock(batch, job)

    ending.unblock = early


def every_end_is_a_success() -> None:
    """Who waits for a success is content with any end."""
    dependencies._MEETS |= dict.fromkeys(Ending, dependencies._MEETS[Ending.ANY])


MUTANTS: Final[MappingProxyType[str, tuple[Callable[[], None], str, int]]] = MappingProxyType(
    {
        "without-the-fence": (without_the_fence, "all", 0),
        "reply-before-commit": (reply_before_commit, "all", 0),
        "without-dedup": (without_dedup, "all", 3),
        "lease-without-deadline-check": (lease_without_deadline_check, "all", 0),
        "deadline-from-after-the-reply": (deadline_from_after_the_reply, "all", 0),
        "leases-on-the-monotonic-clock": (leases_on_the_monotonic_clock, "sqlite", 8),
        "megabytes-whatever-the-link": (megabytes_whatever_the_link, "dicts", 3),
        "refusals-count-as-lost-agents": (refusals_count_as_lost_agents, "all", 9),
        "renewals-refused-when-full": (renewals_refused_when_full, "all", 0),
        "long-runs-published-live": (long_runs_published_live, "all", 2),
        "synchronous-normal": (synchronous_normal, "sqlite", 1),
        "save-without-its-version-check": (save_without_its_version_check, "dicts", 1),
        "without-the-brokers-fence": (without_the_brokers_fence, "shared", 11),
        "without-the-opening-write": (without_the_opening_write, "shared", 5),
        "asynchronous-standby": (asynchronous_standby, "shared", 0),
        "unknown-commit-told-as-failed": (unknown_commit_told_as_failed, "shared", 14),
        "without-grant-rows": (without_grant_rows, "shared", 13),
        "mode-read-without-lock": (mode_read_without_lock, "shared", 44),
        "expiry-of-anothers-lease": (expiry_of_anothers_lease, "shared", 0),
        "hints-without-number": (hints_without_number, "shared", 9),
        "edges-lost": (edges_lost, "all", 1),
        "unblocked-with-one-left": (unblocked_with_one_left, "all", 4),
        "every-end-is-a-success": (every_end_is_a_success, "all", 0),
        **DYNAMODB_MUTANTS,
    }
)
"""Each mutant, the kind of disk on which its lie can show, and a seed that has shown it, which is tried first: when the
product does its work in other steps, another seed shows it."""
