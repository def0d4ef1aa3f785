"""Sealed secrets in SQL, by tenant, queue and name. What is in the boxes only agents can tell."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from airunner.broker.store.contract import Ask, Outcome
from airunner.broker.store.room import Room
from airunner.broker.store.sqlite.idempotency import answered, note_answer
from airunner.broker.store.sqlite.rows import Database, fetch_all, within
from airunner.broker.store.sqlite.usage import Usage
from airunner.certs.principal import QueueScope
from airunner.protocol.errors import NoSpace, NotFound, Quota
from airunner.protocol.messages import (
    BOXES_BYTES_MAX,
    PAGE_SIZE_MAX,
    ListSecrets,
    RemoveSecret,
    SecretRemoved,
    SecretSet,
    SecretsListed,
    SecretSummary,
    SetSecret,
)

_BOX: Final = "SELECT box FROM secret WHERE tenant = ? AND queue = ? AND name = ?"
_BOXES_BYTES: Final = "SELECT coalesce(sum(length(box)), 0) FROM secret WHERE tenant = ? AND queue = ?"
_SET: Final = (
    "INSERT INTO secret (tenant, queue, name, box, set_ms) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET box = excluded.box, set_ms = excluded.set_ms"
)


class _Row(NamedTuple):
    queue: str
    name: str
    set_ms: int


class Secrets:
    """Keeps them over `connection`, within the caller's transaction."""

    def __init__(self, connection: Database, usage: Usage) -> None:
        self._connection = connection
        self._usage = usage

    def set(self, ask: Ask, request: SetSecret, now_ms: int) -> Outcome:
        """Keep a box. A late copy of a request that was answered changes nothing: a newer one may have come since.

        Raises `Quota`, `NoSpace`, `Conflict`.
        """
        if answered(self._connection, ask, request) is None:
            if ask.room < Room.AMPLE:
                raise NoSpace
            before = len(self._box(ask.tenant, request.queue, request.name) or b"")
            taken = self._connection.execute(_BOXES_BYTES, (ask.tenant, request.queue)).get
            assert isinstance(taken, int), "a sum of lengths"
            if taken - before + len(request.box) > BOXES_BYTES_MAX:
                raise Quota(
                    f"the secrets of queue {request.queue} take {taken - before} sealed bytes without this one, which "
                    f"takes {len(request.box)}; {BOXES_BYTES_MAX} are the most"
                )
            self._usage.require(ask.tenant, 0, ask.quotas)
            self._usage.add(ask.tenant, len(request.box) - before)
            self._connection.execute(_SET, (ask.tenant, request.queue, request.name, request.box, now_ms))
            note_answer(self._connection, self._usage, ask, request, (), now_ms)
        return Outcome(reply=SecretSet())

    def remove(self, ask: Ask, request: RemoveSecret, now_ms: int) -> Outcome:
        """Forget a box; a late copy changes nothing, as for `set`.

        Raises `NotFound`, `Conflict`, `Quota`.
        """
        if answered(self._connection, ask, request) is None:
            box = self._box(ask.tenant, request.queue, request.name)
            if box is None:
                raise NotFound(f"queue {request.queue} has no secret {request.name}")
            self._usage.require_end(ask.tenant, ask.quotas)
            self._usage.add(ask.tenant, -len(box))
            self._connection.execute(
                "DELETE FROM secret WHERE tenant = ? AND queue = ? AND name = ?",
                (ask.tenant, request.queue, request.name),
            )
            note_answer(self._connection, self._usage, ask, request, (), now_ms)
        return Outcome(reply=SecretRemoved())

    def list(self, tenant: str, request: ListSecrets, queues: QueueScope = None) -> SecretsListed:
        """A page of `queues`, by queue and name; one row more than it is read to know whether another follows."""
        where, names = within("queue", queues)
        which, whose = ("", ()) if request.queue is None else (" AND queue = ?", (request.queue,))
        rows = fetch_all(
            self._connection,
            _Row,
            f"SELECT queue, name, set_ms FROM secret WHERE tenant = ?{which} AND {where} AND (queue, name) > (?, ?)"
            " ORDER BY queue, name LIMIT ?",
            (tenant, *whose, *names, *(request.after or ("", "")), PAGE_SIZE_MAX + 1),
        )
        return SecretsListed(
            secrets=tuple(SecretSummary(queue=row.queue, name=row.name, set_ms=row.set_ms) for row in rows)[
                :PAGE_SIZE_MAX
            ],
            more=len(rows) > PAGE_SIZE_MAX,
        )

    def of(self, tenant: str, queue: str, names: Collection[str]) -> dict[str, bytes]:
        """The boxes of those `names` that the queue has."""
        boxes = {name: self._box(tenant, queue, name) for name in names}
        return {name: box for name, box in boxes.items() if box is not None}

    def _box(self, tenant: str, queue: str, name: str) -> bytes | None:
        box = self._connection.execute(_BOX, (tenant, queue, name)).get
        assert box is None or isinstance(box, bytes), "a box is bytes"
        return box
