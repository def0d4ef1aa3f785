"""Queries of a fake DynamoDB's table or index: one partition, in the order of the sort key, by pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.simulation.dynamodb.errors import invalid
from tests.simulation.dynamodb.expressions import Item, Names, condition, key_condition, plain, projection
from tests.simulation.dynamodb.limits import PAGE_BYTES_MAX, item_bytes, require_fields
from tests.simulation.dynamodb.table import TABLE, Table


def query(table: Table, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a query, as boto3 has it."""
    require_fields(
        request,
        "TableName",
        "IndexName",
        "KeyConditionExpression",
        "FilterExpression",
        "ProjectionExpression",
        "ExpressionAttributeNames",
        "ExpressionAttributeValues",
        "ScanIndexForward",
        "Limit",
        "Select",
        "ExclusiveStartKey",
        "ConsistentRead",
        "ReturnConsumedCapacity",
    )
    name: str | None = request.get("IndexName")
    if name is not None and name not in table.indexes:
        raise invalid(f"The table does not have the specified index: {name}")
    if name is not None and request.get("ConsistentRead"):
        raise invalid("Consistent reads are not supported on global secondary indexes")
    index = TABLE if name is None else table.indexes[name]
    names = Names(request)
    wanted = key_condition(request["KeyConditionExpression"], names, index.names)
    passes = condition(request.get("FilterExpression"), names)
    show = projection(request.get("ProjectionExpression"), names)
    names.require_used()
    value = wanted.partition[1]
    items: Iterable[Item] = table.partition(value) if name is None else table.shown(name, value)
    forward = request.get("ScanIndexForward", True)

    def place(item: Item) -> tuple[Any, ...]:
        return plain(item[index.sort]), *(() if name is None else table.key_of(item))

    found = sorted((item for item in items if wanted.test(item)), key=place, reverse=not forward)
    start: Item | None = request.get("ExclusiveStartKey")
    if start is not None:
        if set(start) != {*TABLE.names, *index.names} or start[index.partition] != value:
            raise invalid("The provided starting key is invalid")
        found = [item for item in found if (place(item) > place(start) if forward else place(item) < place(start))]
    limit: int | None = request.get("Limit")
    if limit is not None and limit < 1:
        raise invalid("Limit must be greater than or equal to 1")
    return _page(found, limit, request.get("Select"), passes, show, (*TABLE.names, *index.names))


def _page(
    found: list[Item], limit: int | None, select: str | None, passes: Any, show: Any, keys: tuple[str, ...]
) -> dict[str, Any]:
    looked = size = 0
    for item in found[:limit]:
        looked += 1
        size += item_bytes(item)
        if size >= PAGE_BYTES_MAX:
            break
    items = [show(item) for item in found[:looked] if passes(item)]
    answer: dict[str, Any] = {"Count": len(items), "ScannedCount": looked}
    if select != "COUNT":
        answer["Items"] = items
    if looked and (looked < len(found) or looked == limit):
        answer["LastEvaluatedKey"] = {name: found[looked - 1][name] for name in keys}
    return answer
