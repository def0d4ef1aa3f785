"""Opening of a DynamoDB store: checks the table and the clock, and registers the broker in it.

The table is made by the operator, with deploy/aws; the first broker that opens it stores the version of its
items there, and the fleet that the table belongs to. Each check that fails is one line that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, Final

from airunner import __version__
from airunner.broker.store.awserrors import open_client
from airunner.broker.store.awsurl import AwsUrl
from airunner.broker.store.contract import Identity, StoreAway
from airunner.broker.store.dynamodb.adopting import OwnRow
from airunner.broker.store.dynamodb.engine import DynamoEngine
from airunner.broker.store.dynamodb.items import Item
from airunner.broker.store.dynamodb.schema import BROKERS, SLOTS, STORE, VERSION, table_definition
from airunner.broker.store.dynamodb.table import CALLS_MAX, Client, Edges, Table
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError

READY_STEP: Final = 1_000_000  # by which `ready_seq` rises with each opening: the last ones may not have been stored
REGISTER_TRIES: Final = 8
READ_S: Final = 3.0  # for an answer of DynamoDB, which takes some 10 ms
SKEW_MS_MAX: Final = 2_000  # between this machine's clock and AWS's: delays and timestamps follow it
MADE_BY: Final = "make it with deploy/aws/airunner.yaml"


def open_dynamodb(url: AwsUrl, identity: Identity, wall_ms: Callable[[], int]) -> DynamoEngine:
    """Open the store at a URL for a broker. Raises `OperatorError`."""
    client: Client = open_client(url, "dynamodb", connections=CALLS_MAX, read_s=READ_S)
    return open_table(client, url.table, identity, wall_ms, Edges(), announces=url.bus is not None)


def open_table(
    client: Client, name: str, identity: Identity, wall_ms: Callable[[], int], edges: Edges, *, announces: bool
) -> DynamoEngine:
    """Open the store in a table, over a client, for a broker. Raises `OperatorError`."""
    table = Table(client, name, edges)
    try:
        check_table(table)
        check_clock(table, wall_ms)
        claim(table, identity.fleet)
        own = register(table, identity, wall_ms())
    except StoreAway as error:
        edges.close()
        raise OperatorError(f"cannot use {error}", exit_code=EXIT_UNAVAILABLE) from error
    except OperatorError:
        edges.close()
        raise
    return DynamoEngine(table, own, wall_ms, announces=announces)


def check_table(table: Table) -> dict[str, Any]:
    """Check the keys and indexes of the table; return its description. Raises `OperatorError`, `StoreAway`."""
    found: dict[str, Any] = table.describe()["Table"]
    wanted = table_definition(table.name)
    if found["TableStatus"] not in ("ACTIVE", "UPDATING"):
        raise StoreAway(f"{table.shown}: it is {found['TableStatus']}")
    if _keys(found) != _keys(wanted):
        raise OperatorError(f"{table.shown} has other keys than pk and sk: name another one, and {MADE_BY}")
    indexes = {index["IndexName"]: index for index in found.get("GlobalSecondaryIndexes", ())}
    for index in wanted["GlobalSecondaryIndexes"]:
        name = index["IndexName"]
        if name not in indexes or _keys(indexes[name]) != _keys(index):
            raise OperatorError(f"{table.shown} has no index {name} with the right keys: {MADE_BY}")
        if indexes[name].get("IndexStatus", "ACTIVE") != "ACTIVE":
            raise StoreAway(f"{table.shown}: its index {name} is {indexes[name]['IndexStatus']}")
    kinds = {key["AttributeName"]: key["AttributeType"] for key in found["AttributeDefinitions"]}
    for key in wanted["AttributeDefinitions"]:
        if kinds.get(key["AttributeName"]) != key["AttributeType"]:
            words = f"the key {key['AttributeName']} of another type than {key['AttributeType']}"
            raise OperatorError(f"{table.shown} has {words}: {MADE_BY}")
    return found


def _keys(described: dict[str, list[dict[str, str]]]) -> set[tuple[str, str]]:
    return {(key["AttributeName"], key["KeyType"]) for key in described["KeySchema"]}


def check_clock(table: Table, wall_ms: Callable[[], int]) -> None:
    """Check that this machine's clock agrees with AWS's, as far as HTTP's header shows it. Raises `OperatorError`."""
    before_ms = wall_ms()
    answer = table.describe()
    after_ms = wall_ms()
    stamp = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if stamp is None:
        return
    server_ms = int(parsedate_to_datetime(stamp).timestamp()) * 1_000  # cut off to a second
    ahead_ms = max(before_ms - (server_ms + 999), 0) - max(server_ms - after_ms, 0)
    if abs(ahead_ms) > SKEW_MS_MAX:
        words = f"{abs(ahead_ms) / 1000:.1f} s {'ahead of' if ahead_ms > 0 else 'behind'}"
        raise OperatorError(f"this machine's clock is {words} that of DynamoDB: set it by NTP, then start again")


def claim(table: Table, fleet: str) -> None:
    """Claim the table for a fleet, unless it is claimed. Raises `OperatorError`: it is another one's, or newer."""
    pk, sk = STORE
    new = {"pk": {"S": pk}, "sk": {"S": sk}, "version": {"N": str(VERSION)}, "fleet": {"S": fleet}, "slots": {"N": "0"}}
    item = table.get([STORE]).get(STORE)
    if item is None:
        table.put(new, "attribute_not_exists(pk)")
        item = table.get([STORE]).get(STORE)
    if item is None:
        raise StoreAway(f"{table.shown}: it stores nothing and does not say why")
    require_version(table, item)
    if item["fleet"]["S"] != fleet:
        raise OperatorError(
            f"{table.shown} belongs to another fleet, whose brokers have another key: make this home with `airunner "
            "certs import` from a file of that fleet's `airunner certs export`, or name another table with --store"
        )


def require_version(table: Table, item: Item) -> None:
    """Require a store that this version may use, by its item. Raises `OperatorError`."""
    if int(item["version"]["N"]) != VERSION:
        words = f"{table.shown} has version {item['version']['N']} of the schema, and this airunner knows {VERSION}"
        raise OperatorError(f"{words}: install the newer airunner")


def register(table: Table, identity: Identity, now_ms: int) -> OwnRow:
    """Write the broker's row; from then on, another process that runs as this broker is fenced off."""
    key = (BROKERS, identity.broker)
    slot = _new_slot(table)  # even if it had one: its clock may have been set back since
    for _ in range(REGISTER_TRIES):
        before = table.get([key]).get(key)
        epoch = int(before["epoch"]["N"]) + 1 if before else 1
        ready_seq = int(before["ready_seq"]["N"]) + READY_STEP if before else 0
        row = {
            "pk": {"S": key[0]},
            "sk": {"S": key[1]},
            "epoch": {"N": str(epoch)},
            "beat": {"N": str(int(before["beat"]["N"]) + 1 if before else 1)},
            "ready_seq": {"N": str(ready_seq)},
            "slot": {"N": str(slot)},
            "requests": {"S": identity.requests},
            "events": {"S": identity.events},
            "version": {"S": __version__},
            "dead": {"BOOL": False},
            "clean": {"BOOL": False},
            "opened_ms": {"N": str(now_ms)},
        }
        condition = "epoch = :epoch" if before else "attribute_not_exists(pk)"
        if table.put(row, condition, {":epoch": before["epoch"]} if before else None):
            return OwnRow(identity.broker, epoch, slot, ready_seq)
    raise StoreAway(f"{table.shown}: another process opens it as broker {identity.broker} all the time")


def _new_slot(table: Table) -> int:
    """Draw a slot in the numbers of jobs, which no other living broker has."""
    for _ in range(REGISTER_TRIES):
        before = table.get([STORE])[STORE]["slots"]
        values = {":one": {"N": "1"}, ":before": before}
        if table.update(STORE, "ADD slots :one", "slots = :before", values):
            return int(before["N"]) % SLOTS
    raise StoreAway(f"{table.shown}: many brokers open it at once")
