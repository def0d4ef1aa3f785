"""Batch of a DynamoDB engine: what was loaded for it, with the revisions under which it is saved."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from airunner.broker.store.dynamodb.items import Item, JobItem
from airunner.broker.store.dynamodb.notes import Note
from airunner.broker.store.dynamodb.tallies import Bucket, TenantTallies
from airunner.broker.store.rows import Keys, Record
from airunner.protocol.names import RequestId

FENCED: Final = (
    "another broker has taken this one for dead, because it had not written to the store for too long, and has adopted "
    "its jobs: it has to be started again"
)

Dropped = dict[tuple[str, int, str], dict[int, int]]  # by tenant, bucket and broker: old records, by hour


class Batch(Struct):
    """Rows that were loaded for a batch."""

    keys: Keys = msgspec.field(default_factory=Keys)
    jobs: dict[int, JobItem] = {}  # by number
    records: dict[tuple[str, RequestId], Record] = {}
    old_records: dict[tuple[str, RequestId], int] = {}  # those that count no more, with the instant of each
    grants: dict[tuple[str, RequestId], Item] = {}
    tenants: dict[str, TenantTallies] = {}
    tenant_revs: dict[str, int] = {}  # of those whose tallies were read after it; 0: the tenant is new
    secret_revs: dict[tuple[str, str], int] = {}  # by tenant and queue; 0: it never had a secret
    notes: list[Note] = []  # of removed jobs
    dropped: Dropped = {}
    kept: dict[tuple[str, int], Bucket] = {}  # this broker's tally buckets as last written, by tenant and number
