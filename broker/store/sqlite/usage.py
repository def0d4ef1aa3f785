"""What each tenant takes of the store, kept in the transaction that changes it.

Bytes are those of jobs, of what their logs hold and of secrets; a remembered answer and a queue's mode count for a few.
They are gathered while a batch is applied, and written once for each tenant before it is committed.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from airunner.broker.store.quotas import Quotas
from airunner.broker.store.sqlite.rows import Database
from airunner.protocol.errors import Quota

RUNNING_FACTOR: Final = 2  # what runs may write its log until twice as much is kept as what is new may add to
LAST_ROOM_BYTES: Final = 64 * 1_048_576  # beyond twice as much, for what ends something: a thousand ends and more
_ADD = "INSERT INTO usage (tenant, bytes) VALUES (?, ?) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes"


class Usage:
    """Of all tenants, over `connection`."""

    def __init__(self, connection: Database) -> None:
        self._connection = connection
        self._added: Counter[str] = Counter()

    def begin(self) -> None:
        """A transaction begins; what was gathered in one that was rolled back is forgotten."""
        self._added.clear()

    def add(self, tenant: str, size_bytes: int) -> None:
        """The tenant takes so much more, or less."""
        self._added[tenant] += size_bytes

    def require(self, tenant: str, jobs: int, quotas: Quotas) -> None:
        """Raises `Quota`, where the tenant may not have so many jobs more."""
        if quotas.waiting_max is not None:
            waiting = self._of(tenant, "waiting")
            if waiting + jobs > quotas.waiting_max:
                raise Quota(f"{waiting} jobs of this tenant wait, and {quotas.waiting_max} are the most")
        if quotas.bytes_max is not None:
            taken = self._of(tenant, "bytes") + self._added[tenant]
            if taken >= quotas.bytes_max:
                raise Quota(
                    f"this tenant's jobs and logs take {taken} bytes, and {quotas.bytes_max} are the most; "
                    "finished ones are removed when they are old enough"
                )

    def require_log(self, tenant: str, quotas: Quotas, *, last: bool) -> None:
        """Raises `Quota`, where nothing more may be written of what runs; its `last` is still let through."""
        self._require_bytes(tenant, quotas, LAST_ROOM_BYTES if last else 0)

    def require_end(self, tenant: str, quotas: Quotas) -> None:
        """Raises `Quota`, where not even what makes an end of something may leave its few bytes."""
        self._require_bytes(tenant, quotas, LAST_ROOM_BYTES)

    def _require_bytes(self, tenant: str, quotas: Quotas, room_bytes: int) -> None:
        if quotas.bytes_max is None:
            return
        most = RUNNING_FACTOR * quotas.bytes_max + room_bytes
        taken = self._of(tenant, "bytes") + self._added[tenant]
        if taken >= most:
            raise Quota(
                f"this tenant's jobs and logs take {taken} bytes, and {most} are the most for what runs already"
            )

    def write(self) -> None:
        """What was gathered; before the commit."""
        for tenant, size_bytes in self._added.items():
            self._connection.execute(_ADD, (tenant, size_bytes))

    def _of(self, tenant: str, column: str) -> int:
        count = self._connection.execute(f"SELECT {column} FROM usage WHERE tenant = ?", (tenant,)).get
        assert count is None or isinstance(count, int), "usage is counted"
        return count or 0
