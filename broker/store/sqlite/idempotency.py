"""What requests that may be asked once only were answered, in SQL: by tenant and request id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from airunner.broker.store.contract import Ask
from airunner.broker.store.sqlite.rows import Database, fetch_one
from airunner.broker.store.sqlite.schema import ANSWER_BYTES
from airunner.broker.store.sqlite.usage import Usage
from airunner.protocol.coding import canonical_hash
from airunner.protocol.errors import Conflict
from airunner.protocol.messages import EnqueueJob, RemoveSecret, RetryJob, SetSecret, UpdateQueue
from airunner.protocol.names import JobId

Once = EnqueueJob | RetryJob | UpdateQueue | SetSecret | RemoveSecret


class _Before(NamedTuple):
    body_hash: bytes
    job_ids: str


def answered(connection: Database, ask: Ask, request: Once) -> tuple[JobId, ...] | None:
    """The jobs that this very request was told of before; None where it was not asked before.

    Raises `Conflict`: it was asked with another body.
    """
    before = fetch_one(
        connection,
        _Before,
        "SELECT body_hash, job_ids FROM answer WHERE tenant = ? AND request_id = ?",
        (ask.tenant, ask.request_id),
    )
    if before is None:
        return None
    if before.body_hash != canonical_hash(request):
        raise Conflict
    return tuple(map(JobId, before.job_ids.split()))


def note_answer(
    connection: Database, usage: Usage, ask: Ask, request: Once, job_ids: Sequence[JobId], now_ms: int
) -> None:
    """Remember what this request is told."""
    usage.add(ask.tenant, ANSWER_BYTES)
    connection.execute(
        "INSERT INTO answer (tenant, request_id, body_hash, answered_ms, job_ids) VALUES (?, ?, ?, ?, ?)",
        (ask.tenant, ask.request_id, canonical_hash(request), now_ms, " ".join(job_ids)),
    )
