"""Copies of a PostgreSQL store: reads all of its content, and fills an empty one, which is marked until it is whole.

The mark is in `installed.compatible`: no version of airunner may use the store. So no broker opens a copy that was
interrupted. That no broker uses a store is seen in the table of brokers: one that ends marks itself as dead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from airunner.broker.store.contract import Identity, StoreAway
from airunner.broker.store.postgres.batches import Batch
from airunner.broker.store.postgres.connecting import Database, Link
from airunner.broker.store.postgres.engine import PostgresEngine
from airunner.broker.store.postgres.loading import JOB
from airunner.broker.store.postgres.opening import check_server, open_link, require_whole
from airunner.broker.store.postgres.schema import HALF_COPIED
from airunner.broker.store.rows import JobRow, Record, SecretRow
from airunner.protocol.errors import EXIT_UNAVAILABLE, NoSpace, OperatorError
from airunner.protocol.names import RequestId

_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_JOBS_AFTER: Final = f"SELECT {JOB} FROM airunner.job WHERE number > %b ORDER BY number LIMIT %b"
_RECORDS_AFTER: Final = (
    f"SELECT {', '.join(Record.__struct_fields__)} FROM airunner.record WHERE tenant = %b AND request_id > %b"
    " ORDER BY request_id LIMIT %b"
)
_BOXES: Final = f"SELECT {', '.join(SecretRow.__struct_fields__)} FROM airunner.secret WHERE tenant = %b AND queue = %b"
_LOCK: Final = "SELECT compatible FROM airunner.installed FOR UPDATE"
_MARK: Final = "UPDATE airunner.installed SET compatible = %s"
_USERS: Final = "SELECT broker FROM airunner.broker WHERE NOT dead AND broker != %s ORDER BY broker"
_IS_USED: Final = "SELECT " + " OR ".join(
    f"EXISTS (SELECT FROM airunner.{table})" for table in ("job", "record", "secret", "queue")
)


class ContentReader(PostgresEngine):
    """Reader of a store's whole content, within `reading`: at one instant, and without being one of its brokers."""

    @contextmanager
    def reading(self) -> Generator[None]:
        self._batch = Batch()
        self._trips.undo()
        self._trips.add("begin", _BEGIN)
        self._reading = True
        try:
            yield
        finally:
            self._reading = False
            self._trips.undo()

    def jobs_after(self, number: int, limit: int) -> list[JobRow]:
        return self._page(list[JobRow], _JOBS_AFTER, number, limit)

    def records_after(self, tenant: str, request_id: RequestId, limit: int) -> list[Record]:
        return self._page(list[Record], _RECORDS_AFTER, tenant, request_id, limit)

    def boxes(self, tenant: str, queue: str) -> dict[str, SecretRow]:
        if not self._reading:
            return super().boxes(tenant, queue)
        return {row.name: row for row in self._page(list[SecretRow], _BOXES, tenant, queue)}


@contextmanager
def open_content(url: str, *, unused: bool) -> Generator[ContentReader]:
    """Open a store to read its content; `unused`: only if no broker uses it. Raises `OperatorError`."""

    def check(connection: Database) -> list[str]:
        warnings = check_server(connection)
        require_whole(connection)
        return warnings

    with _connected(lambda: Link(url, check)) as link:
        if unused:
            _require_unused(link, "")
        yield ContentReader(link, "", 0)


@contextmanager
def fill(url: str, identity: Identity, now_ms: Callable[[], int]) -> Generator[ContentReader]:
    """Open an empty store to fill it; brokers may use it once this block has ended without an error.

    Its content belongs to the broker `identity`, which has ended then: the first broker to start adopts it.

    Raises `OperatorError`: it is not empty, a broker uses it, or `open_link` refuses it.
    """
    epoch = 0

    def opened() -> Link:
        nonlocal epoch
        link, epoch, _ = open_link(url, identity, now_ms)
        return link

    with _connected(opened) as link:
        engine = ContentReader(link, identity.broker, epoch)
        try:
            compatible = _mark(link, identity.broker)
            yield engine
            _unmark(link, identity.broker, compatible)
        finally:
            engine.retire()


@contextmanager
def _connected(opened: Callable[[], Link]) -> Generator[Link]:
    """Close a link at the end of the block. Raises `OperatorError`: also if the server is lost meanwhile."""
    try:
        link = opened()
        try:
            yield link
        finally:
            link.close()
    except (StoreAway, NoSpace) as error:
        raise OperatorError(f"cannot use {error}; try again", exit_code=EXIT_UNAVAILABLE) from error


def _require_unused(link: Link, own: str) -> None:
    """Require that no broker but `own` uses the store. Raises `OperatorError`."""
    with link.translated():
        users = [broker for (broker,) in link.connection.execute(_USERS, (own,)).fetchall()]
    if users:
        raise OperatorError(
            f"brokers use the store {link.shown}: {', '.join(users)}; stop them with SIGTERM (if one was killed, start "
            "it once more and stop it)",
            exit_code=EXIT_UNAVAILABLE,
        )


def _mark(link: Link, own: str) -> int:
    """Mark an empty store as a copy that is not whole; return what `_unmark` sets again. Raises `OperatorError`."""
    _require_unused(link, own)
    with link.translated():
        link.connection.execute("BEGIN")
        ((compatible,),) = link.connection.execute(_LOCK).fetchall()
        ((is_used,),) = link.connection.execute(_IS_USED).fetchall()
        link.connection.execute(_MARK, (HALF_COPIED,))
        link.connection.execute("ROLLBACK" if is_used else "COMMIT")
    if is_used:
        raise OperatorError(f"the store {link.shown} is not empty: name another database")
    return int(compatible)


def _unmark(link: Link, own: str, compatible: int) -> None:
    """Let brokers use a copy that is whole. Raises `OperatorError`: a broker has begun to use it."""
    _require_unused(link, own)
    with link.committing():
        link.connection.execute(_MARK, (compatible,))
