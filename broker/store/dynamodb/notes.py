"""Notes of removed jobs whose logs are not deleted yet, as items: what is left to delete, and to free."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from airunner.broker.store.dynamodb.items import Item
from airunner.broker.store.dynamodb.schema import Key

_encode = msgspec.msgpack.Encoder().encode


class Gone(Struct):
    """Removed job whose log is not deleted yet, and what a step of retention may delete of it."""

    tenant: str
    job_id: str
    left_bytes: int  # of its log, as its tenant's usage counts them
    items: list[tuple[str, int]] = []  # sort keys, and bytes of events, of the first that are there
    is_whole: bool = False  # whether these are all
    is_done: bool = False  # whether none of them is left
    was_touched: bool = False  # whether something of it was deleted
    ends: bool = False  # whether nothing is left of the log


class Note(Struct):
    """Note of removed jobs, an item: those of one step of retention."""

    key: Key
    rev: int
    logs: list[Gone]


def write_note(note: Note) -> Item:
    """Make the item of a note of removed jobs, with the next revision."""
    logs = [(log.tenant, log.job_id, log.left_bytes) for log in note.logs]
    pk, sk = note.key
    return {"pk": {"S": pk}, "sk": {"S": sk}, "rev": {"N": str(note.rev + 1)}, "logs": {"B": _encode(logs)}}


def read_note(item: Item) -> Note:
    """Read a note of removed jobs from its item."""
    logs = [Gone(*log) for log in msgspec.msgpack.decode(item["logs"]["B"])]
    return Note((item["pk"]["S"], item["sk"]["S"]), int(item["rev"]["N"]), logs)
