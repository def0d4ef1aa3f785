"""Lies of a store on DynamoDB, and of the tickets of SQS beside it; see `mutants`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from airunner.broker.aws.tickets import Tickets
from airunner.broker.lifecycle.commands import Applied, Command, Expire
from airunner.broker.lifecycle.decide import decide
from airunner.broker.lifecycle.world import World
from airunner.broker.offload import Steps
from airunner.broker.store import batch
from airunner.broker.store.contract import StoreUnsure, Waiting
from airunner.broker.store.dynamodb import saving
from airunner.broker.store.dynamodb.engine import DynamoEngine
from airunner.broker.store.dynamodb.table import Table
from airunner.broker.store.rows import QueueKey
from airunner.broker.transactions import Transactions
from airunner.protocol.errors import NoSpace

FOR_EVER_MS: Final = 2**53
_BELIEVED: Final = Expire()  # what a ticket says


def transactions_without_token() -> None:
    """A transaction without an answer is made again without a token: if it was done, that is taken for a refusal."""
    transact, write = Table.transact, Transactions.write

    def without(self: Table, actions: Sequence[dict[str, Any]], token: str) -> None:
        client = self._client
        self._client = _WithoutToken(client)
        try:
            transact(self, actions, token)
        finally:
            self._client = client

    def refused(self: Transactions, commands: Sequence[Command], now_ms: int) -> Steps[Applied]:
        try:
            return (yield from write(self, commands, now_ms))
        except StoreUnsure as unsure:
            if unsure.__cause__ is not None:  # the condition that has failed
                raise NoSpace from unsure
            raise

    Table.transact, Transactions.write = without, refused


class _WithoutToken:
    def __init__(self, client: Any) -> None:
        self._client = client

    def transact_write_items(self, *, ClientRequestToken: str, **asked: Any) -> dict[str, Any]:  # noqa: N803 - AWS's
        del ClientRequestToken
        return self._client.transact_write_items(**asked)


def conditions_without_revision() -> None:
    """An item is written over whatever has become of it since it was loaded."""
    put = Table.put_action

    def blindly(self: Table, item: Any, condition: str, values: Any = None) -> dict[str, Any]:
        if condition == saving.SAME:
            return put(self, item, "attribute_exists(pk)")
        return put(self, item, condition, values)

    Table.put_action = blindly


def claims_of_what_the_index_shows() -> None:
    """A job that the index shows is leased as it was read some time ago, without a condition that it still waits."""
    find, put = DynamoEngine.waiting, Table.put_action
    claimed: set[str] = set()

    def waiting(self: DynamoEngine, wanted: Mapping[QueueKey, int]) -> Waiting:
        client = self.table._client
        self.table._client = _Inconsistent(client)
        try:
            found = find(self, wanted)
        finally:
            self.table._client = client
        claimed.update(row.job_id for row in found.jobs)
        return found

    def blindly(self: Table, item: Any, condition: str, values: Any = None) -> dict[str, Any]:
        job_id = item["pk"]["S"].split("#")[-1]
        if condition == saving.SAME and item["sk"]["S"] == "0" and job_id in claimed:
            claimed.discard(job_id)
            return put(self, item, "attribute_exists(pk)")
        return put(self, item, condition, values)

    DynamoEngine.waiting, Table.put_action = waiting, blindly


class _Inconsistent:
    """Reads items as they were a little ago."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def batch_get_item(self, *, RequestItems: Mapping[str, Any], **asked: Any) -> dict[str, Any]:  # noqa: N803 - AWS's
        late = {table: {**keys, "ConsistentRead": False} for table, keys in RequestItems.items()}
        return self._client.batch_get_item(RequestItems=late, **asked)


def tickets_believed() -> None:
    """A ticket is the lease, and the delay: when SQS delivers one, these are over."""
    due, hear = DynamoEngine.due, Tickets._hear

    def believing(world: World, engine: Any, command: Any) -> Any:
        if command is _BELIEVED:
            for job in world.due():
                job.deadline_ms = job.deadline_ms and min(job.deadline_ms, world.now_ms)
                job.due_ms = job.due_ms and min(job.due_ms, world.now_ms)
        return decide(world, engine, command)

    async def heard(self: Tickets, bodies: Collection[str]) -> Any:
        await self._ledger.send(_BELIEVED)
        return await hear(self, bodies)

    DynamoEngine.due = lambda self, _, limit: due(self, FOR_EVER_MS, limit)
    batch.decide, Tickets._hear = believing, heard


DYNAMODB_MUTANTS: Final[Mapping[str, tuple[Callable[[], None], str, int]]] = MappingProxyType(
    {
        "transactions-without-token": (transactions_without_token, "dynamodb", 2),
        "conditions-without-revision": (conditions_without_revision, "dynamodb", 0),
        "claims-of-what-the-index-shows": (claims_of_what_the_index_shows, "dynamodb", 7),
        "tickets-believed": (tickets_believed, "dynamodb", 0),
    }
)
