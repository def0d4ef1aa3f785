"""Batch of a DynamoDB engine: what was loaded for it, with the revisions under which it is saved."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from airunner.broker.store.dynamodb.items import Item, JobItem
from airunner.broker.store.dynamodb.schema import Key
from airunner.broker.store.dynamodb.tallies import TenantTallies
from airunner.broker.store.rows import Keys, Record
from airunner.protocol.names import RequestId

FENCED: Final = (
    "another broker has taken this one for dead, because it had not written to the store for too long, and has adopted "
    "its jobs: it has to be started again"
)

Dropped = dict[tuple[str, int, str], list[int]]  # by tenant, bucket and broker: hours whose records are old


class Gone(Struct):
    """Removed job whose log is not deleted yet, and what a step of retention has deleted of it."""

    key: Key
    tenant: str
    pk: str
    left_bytes: int  # of its log, as its tenant's usage counts them
    items: list[str]  # sort keys of what is still there
    is_whole: bool  # whether these are all
    is_done: bool = False  # in this step
    ends: bool = False  # whether nothing of it is left


class Batch(Struct):
    """Rows that were loaded for a batch."""

    keys: Keys = msgspec.field(default_factory=Keys)
    jobs: dict[int, JobItem] = {}  # by number
    records: dict[tuple[str, RequestId], Record] = {}
    grants: dict[tuple[str, RequestId], Item] = {}
    tenants: dict[str, TenantTallies] = {}
    tenant_revs: dict[str, int] = {}  # of those whose tallies were read after it; 0: the tenant is new
    secret_revs: dict[tuple[str, str], int] = {}  # by tenant and queue; 0: it never had a secret
    gone: list[Gone] = []
    dropped: Dropped = {}
