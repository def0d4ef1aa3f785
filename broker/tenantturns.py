"""Turns of tenants: a bounded queue of work in which waiting tenants take turns. Pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from airunner.protocol.errors import Busy

T = TypeVar("T")


class TenantTurns(Generic[T]):
    """Turns of tenants: at most `tenant_max` items of each wait, and items until they have `bytes_max` in all."""

    def __init__(self, tenant_max: int, bytes_max: int) -> None:
        self._waiting: dict[str, deque[tuple[T, int]]] = {}  # by tenant; the one whose turn is next first
        self._tenant_max = tenant_max
        self._bytes_max = bytes_max
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, tenant: str, item: T, size_bytes: int) -> None:
        """Add an item of a tenant. Raises `Busy`: too many wait."""
        if len(self._waiting.get(tenant, ())) == self._tenant_max or self._bytes > self._bytes_max:
            raise Busy
        self._waiting.setdefault(tenant, deque()).append((item, size_bytes))
        self._bytes += size_bytes

    def take(self) -> T:
        """Take the next item of the tenant whose turn it is; there is one."""
        tenant = next(iter(self._waiting))
        waiting = self._waiting.pop(tenant)
        item, size_bytes = waiting.popleft()
        if waiting:
            self._waiting[tenant] = waiting
        self._bytes -= size_bytes
        return item
