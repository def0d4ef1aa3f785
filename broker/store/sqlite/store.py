"""The Store on SQLite, by apsw: one file, WAL, `synchronous=FULL`.

A batch is one transaction, begun IMMEDIATE and over when its commit has reached the disk. The file is one
broker's alone: it is locked as long as that one lives.

`memory:` is the same without the file, for tests and trials.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, assert_never

import apsw
import msgspec

from airunner.broker.store.contract import (
    BATCH_COMMANDS_MAX,
    Appended,
    Applied,
    Ask,
    Command,
    Expire,
    Outcome,
    QueueKey,
    Resume,
    Retain,
    StoreReply,
)
from airunner.broker.store.room import TIGHT_JOURNAL_BYTES, TIGHT_JOURNAL_PAGES, Inside
from airunner.broker.store.sqlite.copying import StoreCopy
from airunner.broker.store.sqlite.damage import READ_FAULTS, Aside, Damaged
from airunner.broker.store.sqlite.endings import Endings
from airunner.broker.store.sqlite.jobs import Jobs
from airunner.broker.store.sqlite.leases import Leases
from airunner.broker.store.sqlite.log import Log
from airunner.broker.store.sqlite.meter import Meter
from airunner.broker.store.sqlite.queues import Queues
from airunner.broker.store.sqlite.retention import Retention
from airunner.broker.store.sqlite.rows import Database, fetch_one
from airunner.broker.store.sqlite.schema import migrate
from airunner.broker.store.sqlite.secrets import Secrets
from airunner.broker.store.sqlite.usage import Usage
from airunner.certs.principal import QueueScope
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.coding import refusal
from airunner.protocol.errors import EXIT_DAMAGED, EXIT_UNAVAILABLE, CorruptLog, NoSpace, OperatorError, PeerError
from airunner.protocol.messages import (
    LAST_BYTES_MAX,
    BatchStored,
    CancelJob,
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    GetJob,
    JobCompleted,
    JobEventsPublished,
    ListAgents,
    ListJobs,
    ListQueues,
    ListSecrets,
    PublishJobEvents,
    Refused,
    ReleaseJob,
    RemoveSecret,
    ReplayJobEvents,
    RetryJob,
    SetSecret,
    UpdateJob,
    UpdateQueue,
    WatchJob,
)
from airunner.protocol.names import JobId

MEMORY_URL: Final = "memory:"
FILE_URL: Final = "sqlite:///"
STATEMENTS_CACHED: Final = 128
_Reading = ListJobs | ListQueues | ListAgents | ListSecrets | GetJob | ReplayJobEvents | WatchJob
CHECKPOINT_PAGES: Final = 4_096  # 16 MiB of WAL between two checkpoints
JOURNAL_BYTES_MAX: Final = 2 * CHECKPOINT_PAGES * 4_096  # what a WAL that once grew keeps of the disk
FULL_ERRNOS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a quota or a limit is a full disk too
DAMAGED_PAUSE_MS: Final = 60_000  # then what is due and cannot be looked up for damage is looked up again
_INSIDE: Final = (
    "SELECT page_count * page_size, freelist_count * page_size"
    " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)


class _DamageMet(Exception):
    """A batch met damage, and is applied again without what it was about."""


class SqliteStore:
    """See `contract.Store`."""

    def __init__(self, connection: Database) -> None:
        self._connection = connection
        self.aside = Aside()
        self._meter = metered = Meter(connection)
        self._usage = Usage(metered)
        self._log = Log(metered, self._usage, self.aside)
        self._queues = Queues(metered, self._usage)
        self._jobs = Jobs(metered, self._log, self._queues, self._usage)
        self._secrets = Secrets(metered, self._usage)
        self._leases = Leases(metered, self._log, self._secrets, self.aside)
        self._endings = Endings(metered, self._log, self.aside)
        self._retention = Retention(metered, self._usage, self.aside)

    def apply(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Apply a batch as one transaction.

        Raises `NoSpace`: nothing of it is stored.
        """
        applied = self.stage(commands, now_ms)
        self.commit()
        return applied

    def stage(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Apply a batch in a transaction that is for `commit` to end.

        Raises `NoSpace`: nothing of it is stored.
        """
        assert len(commands) <= BATCH_COMMANDS_MAX
        refused: set[int] = set()
        while True:  # once more for each command, or job, that meets damage
            try:
                return self._stage(commands, now_ms, refused)
            except _DamageMet:
                self.aside.met += 1

    def _stage(self, commands: Sequence[Command], now_ms: int, refused: set[int]) -> Applied:
        """All commands but those that are refused for damage, by their place in the batch.

        Raises `_DamageMet`: another is refused, or another job is set aside.
        """
        with self._rolled_back():
            if self._connection.in_transaction:  # nobody was told of what was staged before, and not committed
                self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN IMMEDIATE")
            self._usage.begin()
            outcomes: list[Outcome] = []
            for place, command in enumerate(commands):
                if place in refused:
                    outcomes.append(_refused_for_damage(command))
                    continue
                try:
                    outcomes.append(self._counted(command, now_ms))
                except (Damaged, *UNDECODABLE) as damaged:
                    if not self._set_aside(command, damaged):
                        refused.add(place)
                    raise _DamageMet from damaged
            self._usage.write()
            due_ms = self._endings.next_due_ms()
            if due_ms is not None and any(isinstance(commands[place], Expire) for place in refused):
                due_ms = max(due_ms, now_ms + DAMAGED_PAUSE_MS)
            return Applied(tuple(outcomes), due_ms)

    def _set_aside(self, command: Command, damaged: Exception) -> bool:
        """Whether the command may be tried again: without the job that it met damage for, or job by job.

        Raises `Damaged`: a start cannot do without.
        """
        if isinstance(damaged, Damaged) and damaged.key is not None and self.aside.add(damaged.key):
            return True
        if isinstance(command, Resume):
            if self.aside.careful:
                raise damaged
            self.aside.careful = True
            return True
        return False

    def commit(self) -> None:
        """Have on disk what was staged.

        Raises `NoSpace`: nothing of it is stored.
        """
        with self._rolled_back():
            self._connection.execute("COMMIT")

    def inside(self) -> Inside:
        """What the file holds once the journal is written back."""
        found = fetch_one(self._connection, Inside, _INSIDE, ())
        assert found is not None, "a row"
        return found

    def tighten(self, *, tight: bool, shorten: bool) -> None:
        """Write the journal back early, and keep it short, while there is little room; or as usual.

        `shorten`: it is longer than it is to be, and gives that back at once.
        """
        pages = TIGHT_JOURNAL_PAGES if tight else CHECKPOINT_PAGES
        size_bytes = TIGHT_JOURNAL_BYTES if tight else JOURNAL_BYTES_MAX
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        self._connection.execute(f"PRAGMA journal_size_limit = {size_bytes}")
        if tight:
            self._checkpoint("TRUNCATE" if shorten else "RESTART")

    def write_back(self) -> None:
        """Copy what is in the journal into the store, so that the journal begins again; as far as there is room."""
        self._checkpoint("RESTART")  # it keeps its place on the disk, and is written over

    def _checkpoint(self, mode: str) -> None:
        with suppress(NoSpace), self._rolled_back():
            self._connection.execute(f"PRAGMA wal_checkpoint({mode})")

    def copy_to(self, descriptor: int) -> StoreCopy:
        """A copy of the store into an open file, made step by step; see `StoreCopy`."""
        return StoreCopy(self._connection, descriptor)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _counted(self, command: Command, now_ms: int) -> Outcome:
        self._meter.begin()
        outcome = self._apply(command, now_ms)
        return msgspec.structs.replace(outcome, cost=self._meter.cost())

    def _apply(self, command: Command, now_ms: int) -> Outcome:
        match command:
            case Ask():
                try:
                    self._jobs.require_in(command)
                    return self._answer(command, now_ms)
                except PeerError as error:
                    return Outcome(reply=refusal(error))
            case Expire():
                return self._endings.expire(now_ms)
            case Resume():
                return self._leases.resume(now_ms)
            case Retain():
                return self._retention.step(command, now_ms)
            case _:
                assert_never(command)

    def _answer(self, ask: Ask, now_ms: int) -> Outcome:
        match ask.request:
            case EnqueueJob() as request:
                return self._jobs.enqueue(ask, request, now_ms)
            case DequeueJob() as request:
                return self._leases.dequeue(ask, request, now_ms)
            case UpdateJob() as request:
                return Outcome(reply=self._leases.renew(ask.tenant, request, now_ms))
            case PublishJobEvents() as request:
                return self._publish(ask, request, now_ms)
            case CompleteJob() as request:
                return self._endings.complete(ask.tenant, request, now_ms)
            case ReleaseJob() as request:
                return self._endings.release(ask, request, now_ms)
            case CancelJob() as request:
                return self._endings.cancel(ask.tenant, request, now_ms)
            case RetryJob() as request:
                return self._jobs.retry(ask, request, now_ms)
            case UpdateQueue() as request:
                return self._queues.update(ask, request, now_ms)
            case SetSecret() as request:
                return self._secrets.set(ask, request, now_ms)
            case RemoveSecret() as request:
                return self._secrets.remove(ask, request, now_ms)
            case _:
                return Outcome(reply=self._read(ask.tenant, ask.queues, ask.request))

    def _read(self, tenant: str, queues: QueueScope, request: _Reading) -> StoreReply:
        """The answer to a request that changes nothing, from these queues."""
        match request:
            case ListJobs():
                return self._jobs.list(tenant, request, queues)
            case ListQueues():
                return self._queues.list(tenant, request, queues)
            case ListAgents():
                return self._leases.counts(tenant)
            case ListSecrets():
                return self._secrets.list(tenant, request, queues)
            case GetJob():
                return self._jobs.get(tenant, request)
            case ReplayJobEvents():
                return self._log.replay(tenant, request)
            case WatchJob():
                return self._jobs.watch(tenant, request)
            case _:
                assert_never(request)

    def _publish(self, ask: Ask, request: PublishJobEvents, now_ms: int) -> Outcome:
        """Each batch is judged by itself, and so is each completion."""
        tenant = ask.tenant
        lasts = _lasts(request)
        stored: list[BatchStored] = []
        completed: list[JobCompleted | Refused] = []
        appended: list[Appended] = []
        ready: set[QueueKey] = set()
        for batch in request.batches:
            try:
                next_index, run = self._log.publish(
                    tenant, batch, ask.quotas, last=(batch.job_id, batch.attempt) in lasts, room=ask.room
                )
            except PeerError as error:
                outcome = BatchStored(
                    job_id=JobId(batch.job_id),
                    attempt=batch.attempt,
                    next_index=error.expected_index or 0,
                    code=error.code,
                )
            else:
                outcome = BatchStored(job_id=JobId(batch.job_id), attempt=batch.attempt, next_index=next_index)
                if run is not None:
                    appended.append(run)
            stored.append(outcome)
        for completion in request.completions:
            try:
                ended = self._endings.complete(tenant, completion, now_ms)
            except PeerError as error:
                completed.append(refusal(error))
            else:
                assert isinstance(ended.reply, JobCompleted), "what ends an attempt says how the job stands"
                completed.append(ended.reply)
                appended += ended.appended
                ready |= ended.ready
        reply = JobEventsPublished(batches=tuple(stored), completions=tuple(completed))
        return Outcome(reply=reply, appended=tuple(appended), ready=frozenset(ready))

    @contextmanager
    def _rolled_back(self) -> Generator[None]:
        """Whatever goes wrong in this block, nothing of the transaction is stored."""
        try:
            yield
        except BaseException as error:
            full = isinstance(error, apsw.FullError) or (
                isinstance(error, apsw.IOError) and getattr(self._connection, "system_errno", 0) in FULL_ERRNOS
            )
            with suppress(apsw.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            if full:
                raise NoSpace from error
            if isinstance(error, (*READ_FAULTS, apsw.NotADBError, Damaged)):
                raise OperatorError(
                    f"the store is damaged, or its disk fails ({error}): nothing more can be promised; run "
                    "`airunner store check`, and put a backup back with `airunner store restore`",
                    exit_code=EXIT_DAMAGED,
                ) from error
            raise


def _refused_for_damage(command: Command) -> Outcome:
    return Outcome(reply=refusal(CorruptLog()), cost=1) if isinstance(command, Ask) else Outcome()


def _lasts(request: PublishJobEvents) -> set[tuple[str, int]]:
    """The attempts that end with this request, as far as it has little else of them."""
    size_bytes: Counter[tuple[str, int]] = Counter()
    for batch in request.batches:
        size_bytes[batch.job_id, batch.attempt] += len(batch.events)
    ending = {(completion.job_id, completion.attempt) for completion in request.completions}
    return {attempt for attempt in ending if size_bytes[attempt] <= LAST_BYTES_MAX}


def path_of(url: str) -> Path | None:
    """Where the file of a store lies; None for one in memory.

    Raises `OperatorError`: another URL.
    """
    if url == MEMORY_URL:
        return None
    path = Path(url.removeprefix(FILE_URL))
    if not url.startswith(FILE_URL) or not path.name:
        raise OperatorError(f"--store {url!r} is not a store; write sqlite:///PATH or memory:")
    return path


def open_store(url: str) -> SqliteStore:
    """The store at `sqlite:///PATH` (a fourth slash: an absolute one) or `memory:`.

    Raises `OperatorError`: another URL, a folder that cannot be written, a file that another broker has.
    """
    path = path_of(url)
    if path is None:
        connection = apsw.Connection(":memory:", statementcachesize=STATEMENTS_CACHED)
        prepare(connection)
        return SqliteStore(connection)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = apsw.Connection(str(path), statementcachesize=STATEMENTS_CACHED)
    except (OSError, apsw.CantOpenError) as error:
        raise OperatorError(f"cannot open the store {path}: {error}; name another with --store") from error
    try:
        prepare(connection)
        return SqliteStore(connection)
    except apsw.BusyError as error:
        connection.close()
        raise OperatorError(
            f"another broker uses the store {path}; stop it, or name another with --store",
            exit_code=EXIT_UNAVAILABLE,
        ) from error
    except apsw.NotADBError as error:
        connection.close()
        raise OperatorError(f"{path} is not a store of airunner's; name another with --store") from error
    except apsw.Error as error:
        connection.close()
        raise OperatorError(
            f"cannot use the store {path}: {error}; make room or restore it, or name another with --store"
        ) from error


def prepare(connection: Database) -> None:
    """Set an open database up as this broker's alone, and bring its schema up to this version.

    Raises `OperatorError`: it is not a store, or a newer one.
    """
    for setting in (
        "locking_mode = exclusive",  # a broker's file is its own; then there is no shared memory to map either
        "journal_mode = wal",
        "synchronous = full",
        "foreign_keys = off",  # a log is removed in steps, after its job
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
        f"journal_size_limit = {JOURNAL_BYTES_MAX}",
    ):
        connection.execute(f"PRAGMA {setting}")  # one by one: a statement that returns a row ends an execute
    # Else a statement whose plan might depend on a value is planned anew for each: twenty times what it takes to run.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    migrate(connection)
