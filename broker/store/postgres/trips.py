"""Round trips to a PostgreSQL server: statements are queued, and sent together in pipeline mode with one sync.

A transaction begins with `OPENING`, which has four uses: it fences off a broker that was taken for dead; it is the
broker's sign of life; it makes every batch, also of reads, a write, so that no answer is drawn from rows that a standby
has not got; and it sets, for this transaction only:

- `idle_in_transaction_session_timeout`, so that the locks of a broker that was stopped amid a batch are given back, and
  `tcp_user_timeout`, for one that was stopped before it had read all rows: its session does not count as idle; and
  keepalives, for one whose machine was lost before all of a trip had left it (for a process that is stopped there, in
  the midst of a large trip, nothing does: its locks last until it goes on or is killed);
- the planner's choices: each statement of a batch is written for nested loops over indexes in their order, whatever the
  statistics of tables that grow and shrink all the time may say, and is planned once; compiling plans (`jit`) would
  take longest of all. With sorts off, an order is asked of the few rows that lead to others, never of a whole table.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import psycopg
from psycopg.pq import TransactionStatus

from airunner.broker.store.contract import Fenced, Moved
from airunner.broker.store.postgres.connecting import Link
from airunner.broker.store.postgres.pipeline import Pipeline, Rows, Value

IDLE_S_MAX: Final = 5  # of a transaction, between its trips: half of the time after which a broker is taken for dead
SETTINGS: Final = {
    "idle_in_transaction_session_timeout": f"{IDLE_S_MAX}s",
    "tcp_user_timeout": f"{IDLE_S_MAX}s",
    **{f"tcp_keepalives_{name}": count for name, count in (("idle", "5"), ("interval", "2"), ("count", "3"))},
    "plan_cache_mode": "force_generic_plan",
    **dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off"),
}
_SET: Final = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in SETTINGS.items())
BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
BEGIN_READING: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE"
OPENING: Final = (
    "UPDATE airunner.broker SET beat = beat + 1 WHERE broker = %b AND epoch = %b AND NOT dead"
    f" RETURNING ready_seq, {_SET}"
)
FENCED: Final = (
    "another broker has taken this one for dead, because it had not written to the store for too long, and has adopted "
    "its jobs: it has to be started again"
)


class Trips:
    """Round trips of the broker `broker`, which has opened the store for the `epoch`-th time, over a link.

    `rows` counts all rows that were sent or fetched.
    """

    def __init__(self, link: Link, broker: str, epoch: int) -> None:
        self.link = link
        self.broker = broker
        self.rows = 0
        self._epoch = epoch
        self._queued: list[tuple[str, str, Sequence[Value]]] = []
        self._pipeline = Pipeline(link.connection)

    def begin(self, how: str = BEGIN) -> None:
        """Undo a transaction that was not committed, and queue the beginning of the next one."""
        self.undo()
        self.add("begin", how)
        self.add("opening", OPENING, self.broker, self._epoch)

    def add(self, name: str, statement: str, *values: Value) -> None:
        """Queue a statement; its rows are found by `name`."""
        self._queued.append((name, statement, values))

    def send(self, *, committing: bool = False) -> dict[str, Rows]:
        """Send what is queued, and return the rows of each statement. `committing`: COMMIT is among them.

        Raises `Moved`, `NoSpace`, `StoreAway`, `StoreUnsure`, `OperatorError`; then nothing is left of the transaction.
        Raises `Fenced`.
        """
        queued, self._queued = self._queued, []
        guard = self.link.committing() if committing else self.link.translated()
        try:
            with guard:
                found = self._fetched(queued)
        except BaseException:
            self.undo()
            raise
        self.rows += sum(map(len, found.values()))
        if found.get("opening") == []:
            self.undo()
            raise Fenced(FENCED)
        return found

    def _fetched(self, queued: list[tuple[str, str, Sequence[Value]]]) -> dict[str, Rows]:
        names = [name for name, _, _ in queued]
        assert len(set(names)) == len(names), names
        try:
            return dict(zip(names, self._pipeline.run([sent[1:] for sent in queued]), strict=True))
        except psycopg.errors.DivisionByZero as error:  # of `saving.COUNTED`
            raise Moved from error

    def undo(self) -> None:
        """Undo the transaction, if there is one, so that it holds no lock any longer."""
        self._queued = []
        connection = self.link.connection
        if connection.info.transaction_status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN):
            with suppress(psycopg.Error):
                connection.execute(b"ROLLBACK")

    def reconnect(self) -> None:
        """Connect again. Raises `StoreAway`, `OperatorError`."""
        self._queued = []
        self.link.reconnect()
        self._pipeline = Pipeline(self.link.connection)
