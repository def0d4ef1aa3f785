"""A fake DynamoDB: each operation as the low-level client of boto3 has it, done at once and all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from botocore.exceptions import ClientError

from tests.simulation.dynamodb import limits
from tests.simulation.dynamodb.errors import cancelled, client_error, failed_condition, invalid
from tests.simulation.dynamodb.expressions import Item, Names, Test, Value, condition, projection
from tests.simulation.dynamodb.limits import item_bytes, require_expressions, require_fields, require_key, size_of
from tests.simulation.dynamodb.querying import query
from tests.simulation.dynamodb.table import TABLE, Key, Table
from tests.simulation.dynamodb.updates import update

TOKEN_S: Final = 600.0  # a transaction is known by its token for so long
Request = Mapping[str, Any]
Answer = dict[str, Any]
Written = tuple[Item | None, Item | None]
"""An item before a write and after it; None: there is none."""
OPERATIONS: Final = (
    "get_item",
    "batch_get_item",
    "query",
    "put_item",
    "update_item",
    "delete_item",
    "transact_write_items",
    "describe_table",
)


def copied(item: Mapping[str, Value]) -> Item:
    """A copy that shares nothing that can change."""
    return {name: _copied(value) for name, value in item.items()}


def _copied(value: Value) -> Value:
    ((kind, content),) = value.items()
    match kind:
        case "M":
            return {kind: {name: _copied(inner) for name, inner in content.items()}}
        case "L":
            return {kind: [_copied(inner) for inner in content]}
        case "B":
            return {kind: bytes(content)}
        case "N":
            return {kind: _number(content)}
        case _:
            return {kind: content}


def _number(text: str) -> str:
    """A number as DynamoDB writes it; those of an engine are whole ones."""
    return str(int(text)) if text.lstrip("-").isdigit() else text


class Write(NamedTuple):
    """One write of a request: what it makes of an item."""

    table: str
    key: Key
    condition: Test
    make: Callable[[Item | None], Item | None]
    shows_old: bool  # if its condition fails
    bytes: int
    checks: bool = False  # and does no more


class Server:
    """Tables, and the tokens of transactions. `now_s`: see `Table`."""

    def __init__(self, tables: Mapping[str, Table], now_s: Callable[[], float] = lambda: 0.0) -> None:
        self.tables = tables
        self.now_s = now_s
        self.on_commit: Callable[[Sequence[Written]], None] = lambda _: None  # gets what each call has written
        self._tokens: dict[str, tuple[float, object]] = {}

    def do(self, operation: str, request: Request) -> Answer:
        """Do an operation, named as the client's method. Raises ClientError."""
        assert operation in OPERATIONS
        try:
            require_expressions(request)
            answer: Answer = getattr(self, operation)(request)
        except ClientError as error:
            error.operation_name = error.operation_name or operation.title().replace("_", "")
            raise
        return answer | {"ResponseMetadata": {"HTTPStatusCode": 200, "RetryAttempts": 0, "HTTPHeaders": {}}}

    def _table(self, name: str) -> Table:
        if name not in self.tables:
            raise client_error("ResourceNotFoundException", "Requested resource not found")
        return self.tables[name]

    @staticmethod
    def _key(item: Mapping[str, Value], *, only: bool = True) -> Key:
        if only and set(item) != {TABLE.partition, TABLE.sort}:
            raise invalid("The provided key element does not match the schema")
        require_key(TABLE.partition, item.get(TABLE.partition), "S", limits.PARTITION_KEY_BYTES_MAX)
        require_key(TABLE.sort, item.get(TABLE.sort), "S", limits.SORT_KEY_BYTES_MAX)
        return Table.key_of(dict(item))

    # --- reads ---

    def get_item(self, request: Request) -> Answer:
        require_fields(request, "TableName", "Key", "ConsistentRead", *_SHOWS)
        names = Names(request)
        show = projection(request.get("ProjectionExpression"), names)
        names.require_used()
        table, key = self._table(request["TableName"]), self._key(request["Key"])
        item = table.get(key) if request.get("ConsistentRead") else table.get_late(key)
        return ({} if item is None else {"Item": show(copied(item))}) | _read_units(request)

    def batch_get_item(self, request: Request) -> Answer:
        require_fields(request, "RequestItems", "ReturnConsumedCapacity")
        wanted: Mapping[str, Request] = request["RequestItems"]
        if not 0 < sum(len(one["Keys"]) for one in wanted.values()) <= limits.BATCH_KEYS_MAX:
            raise invalid("Too many items requested for the BatchGetItem call, or none")
        found: dict[str, list[Item]] = {}
        left: dict[str, Request] = {}
        room = limits.BATCH_BYTES_MAX
        for name, one in wanted.items():
            require_fields(one, "Keys", "ConsistentRead", "ProjectionExpression", "ExpressionAttributeNames")
            names = Names(one)
            show = projection(one.get("ProjectionExpression"), names)
            names.require_used()
            keys = [self._key(key) for key in one["Keys"]]
            if len(set(keys)) < len(keys):
                raise invalid("Provided list of item keys contains duplicates")
            items = found.setdefault(name, [])
            for key, asked in zip(keys, one["Keys"], strict=True):
                item = self._table(name).get(key) if one.get("ConsistentRead") else self._table(name).get_late(key)
                if item is not None and room < item_bytes(item):
                    left.setdefault(name, {**one, "Keys": []})["Keys"].append(asked)
                elif item is not None:
                    room -= item_bytes(item)
                    items.append(show(copied(item)))
        return {"Responses": found, "UnprocessedKeys": left} | _read_units(request, several=True)

    def query(self, request: Request) -> Answer:
        return query(self._table(request["TableName"]), request) | _read_units(request)

    def describe_table(self, request: Request) -> Answer:
        require_fields(request, "TableName")
        table = self._table(request["TableName"])
        types = {
            name: kind
            for index in (TABLE, *table.indexes.values())
            for name, kind in ((index.partition, index.partition_type), (index.sort, index.sort_type))
        }

        def schema(names: tuple[str, str]) -> list[dict[str, str]]:
            return [{"AttributeName": names[0], "KeyType": "HASH"}, {"AttributeName": names[1], "KeyType": "RANGE"}]

        return {
            "Table": {
                "TableName": request["TableName"],
                "TableStatus": "ACTIVE",
                "KeySchema": schema(TABLE.names),
                "AttributeDefinitions": [{"AttributeName": name, "AttributeType": types[name]} for name in types],
                "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
                "GlobalSecondaryIndexes": [
                    {
                        "IndexName": name,
                        "IndexStatus": "ACTIVE",
                        "KeySchema": schema(index.names),
                        "Projection": {"ProjectionType": "KEYS_ONLY"},
                    }
                    for name, index in table.indexes.items()
                ],
                "ItemCount": sum(1 for _ in table.items()),
                "TableSizeBytes": sum(item_bytes(item) for item in table.items()),
            }
        }

    # --- writes ---

    def put_item(self, request: Request) -> Answer:
        require_fields(request, "Item", *_WRITES)
        return self._single("PutItem", request, self._put(request))

    def update_item(self, request: Request) -> Answer:
        require_fields(request, "Key", "UpdateExpression", *_WRITES)
        return self._single("UpdateItem", request, self._update(request))

    def delete_item(self, request: Request) -> Answer:
        require_fields(request, "Key", *_WRITES)
        return self._single("DeleteItem", request, self._delete(request))

    def _single(self, operation: str, request: Request, write: Write) -> Answer:
        table = self._table(write.table)
        before = table.get(write.key)
        if not write.condition(before or {}):
            shown = copied(before) if before is not None and write.shows_old else None
            raise failed_condition(operation, shown)
        after = self._made(table, write, before)
        units = table.write(write.key, after, transactional=False)
        self.on_commit([(before, after)])
        answer = _write_units(request, {write.table: units})
        answer = {name: capacities[0] for name, capacities in answer.items()}
        shown = {"ALL_OLD": before, "ALL_NEW": after}.get(request.get("ReturnValues", "NONE"))
        if request.get("ReturnValues", "NONE") not in {"NONE", "ALL_OLD", "ALL_NEW"}:
            raise invalid("the fake knows no other ReturnValues")
        return answer | ({} if shown is None else {"Attributes": copied(shown)})

    @staticmethod
    def _made(table: Table, write: Write, before: Item | None) -> Item | None:
        """What a write makes of an item. Raises if it is too large, or no item."""
        after = write.make(before)
        if after is not None:
            if item_bytes(after) > limits.ITEM_BYTES_MAX:
                raise invalid("Item size has exceeded the maximum allowed size")
            table.require_indexed(after)
        return after

    def _put(self, request: Request) -> Write:
        item = copied_checked(request["Item"])
        key = self._key(item, only=False)
        return self._write(request, key, lambda _: item, item_bytes(item))

    def _update(self, request: Request) -> Write:
        key = self._key(request["Key"])
        names = Names(request)
        make = update(request["UpdateExpression"], names, TABLE.names)
        values = request.get("ExpressionAttributeValues", {}).values()
        size = item_bytes(request["Key"]) + sum(size_of(value) for value in values)
        keys = copied(request["Key"])
        return self._write(request, key, lambda before: make(before or keys), size, names)

    def _delete(self, request: Request) -> Write:
        return self._write(request, self._key(request["Key"]), lambda _: None, item_bytes(request["Key"]))

    def _check(self, request: Request) -> Write:
        write = self._write(request, self._key(request["Key"]), lambda item: item, item_bytes(request["Key"]))
        return write._replace(checks=True)

    @staticmethod
    def _write(
        request: Request, key: Key, make: Callable[[Item | None], Item | None], size: int, names: Names | None = None
    ) -> Write:
        names = names or Names(request)
        test = condition(request.get("ConditionExpression"), names)
        names.require_used()
        shows_old = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
        return Write(request["TableName"], key, test, make, shows_old, size)

    def transact_write_items(self, request: Request) -> Answer:
        require_fields(request, "TransactItems", "ClientRequestToken", "ReturnConsumedCapacity")
        items: Sequence[Mapping[str, Request]] = request["TransactItems"]
        if not 0 < len(items) <= limits.TRANSACTION_ITEMS_MAX:
            raise invalid("Member must have length less than or equal to 100, and greater than or equal to 1")
        token: str | None = request.get("ClientRequestToken")
        if token is not None and not 0 < len(token) <= limits.TOKEN_CHARS_MAX:
            raise invalid("ClientRequestToken must have length less than or equal to 36, and greater than 0")
        writes = [self._parsed(one) for one in items]
        if len({write[:2] for write in writes}) < len(writes):
            raise invalid("Transaction request cannot include multiple operations on one item")
        if token is not None and self._is_done(token, request):
            return {}
        befores = [self._table(write.table).get(write.key) for write in writes]
        tried = [self._tried(write, before) for write, before in zip(writes, befores, strict=True)]
        if any(reason["Code"] != "None" for reason, _ in tried):
            raise cancelled([reason for reason, _ in tried])
        sizes = [max(write.bytes, item_bytes(after or {})) for write, (_, after) in zip(writes, tried, strict=True)]
        if sum(sizes) > limits.TRANSACTION_BYTES_MAX:
            raise invalid("Collection size limit exceeded: a transaction has at most 4 MB")
        units: dict[str, dict[str, float]] = {}
        for write, (_, after) in zip(writes, tried, strict=True):
            table = self._table(write.table)
            if write.checks:
                done = {"": 2.0 * limits.units_of(write.bytes)}
                table.units += done[""]
            else:
                done = table.write(write.key, after, transactional=True)
            sums = units.setdefault(write.table, {})
            sums.update({name: sums.get(name, 0) + taken for name, taken in done.items()})
        if token is not None:
            self._tokens[token] = self.now_s(), _frozen(request["TransactItems"])
        self.on_commit([(before, after) for before, (_, after) in zip(befores, tried, strict=True)])
        return _write_units(request, units)

    def _parsed(self, one: Mapping[str, Request]) -> Write:
        ((kind, request),) = one.items()
        more = {"Put": ["Item"], "Update": ["Key", "UpdateExpression"]}.get(kind, ["Key"])
        require_fields(request, *more, *(field for field in _WRITES if not field.startswith("ReturnC")), _SHOWS_OLD)
        require_expressions(request)
        return {"Put": self._put, "Update": self._update, "Delete": self._delete, "ConditionCheck": self._check}[kind](
            request
        )

    def _is_done(self, token: str, request: Request) -> bool:
        """Whether this very transaction has been done. Raises if another one has, with this token."""
        at_s, content = self._tokens.get(token, (float("-inf"), None))
        if self.now_s() - at_s > TOKEN_S:
            return False
        if content != _frozen(request["TransactItems"]):
            raise client_error("IdempotentParameterMismatchException", "Idempotent parameter mismatch")
        return True

    def _tried(self, write: Write, before: Item | None) -> tuple[dict[str, Any], Item | None]:
        """What a write of a transaction makes of an item, or the reason why it does not."""
        if not write.condition(before or {}):
            shown = {"Item": copied(before)} if before is not None and write.shows_old else {}
            return {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"} | shown, None
        try:
            after = self._made(self._table(write.table), write, before)
        except ClientError as error:
            return {"Code": "ValidationError", "Message": error.response["Error"]["Message"]}, None
        return {"Code": "None"}, after


def copied_checked(item: Mapping[str, Value]) -> Item:
    """A copy of an item that was given. Raises if a value is none."""
    for value in item.values():
        size_of(value)
    return copied(item)


def _frozen(value: object) -> object:
    """A value that can be compared later, whatever becomes of the first."""
    match value:
        case Mapping():
            return tuple(sorted((name, _frozen(inner)) for name, inner in value.items()))
        case list() | tuple():
            return tuple(_frozen(inner) for inner in value)
        case bytearray():
            return bytes(value)
        case _:
            return value


_SHOWS: Final = ("ProjectionExpression", "ExpressionAttributeNames", "ReturnConsumedCapacity")
_SHOWS_OLD: Final = "ReturnValuesOnConditionCheckFailure"
_WRITES: Final = (
    "TableName",
    "ConditionExpression",
    "ExpressionAttributeNames",
    "ExpressionAttributeValues",
    "ReturnValues",
    "ReturnConsumedCapacity",
    _SHOWS_OLD,
)


def _read_units(request: Request, *, several: bool = False) -> Answer:
    """Units of a read: not counted, but there if they are asked for."""
    if request.get("ReturnConsumedCapacity", "NONE") == "NONE":
        return {}
    capacity = {"TableName": request.get("TableName", ""), "CapacityUnits": 1.0}
    return {"ConsumedCapacity": [capacity] if several else capacity}


def _write_units(request: Request, units: Mapping[str, Mapping[str, float]]) -> Answer:
    """Units of a write, if they are asked for."""
    if (asked := request.get("ReturnConsumedCapacity", "NONE")) == "NONE":
        return {}
    capacities: list[dict[str, Any]] = []
    for name, taken in units.items():
        capacity: dict[str, Any] = {"TableName": name, "CapacityUnits": float(sum(taken.values()))}
        if asked == "INDEXES":
            capacity["Table"] = {"CapacityUnits": float(taken[""])}
            capacity["GlobalSecondaryIndexes"] = {
                index: {"CapacityUnits": float(count)} for index, count in taken.items() if index
            }
        capacities.append(capacity)
    return {"ConsumedCapacity": capacities}
