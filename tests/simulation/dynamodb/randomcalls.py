"""Random calls of a DynamoDB client, on few keys: conditions fail, transactions meet, indexes have much to do."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from botocore.exceptions import ClientError

KEYS: Final = [{"pk": {"S": pk}, "sk": {"S": sk}} for pk in ("a", "b#ü") for sk in ("0", "E#1", "E#2", "S")]
CONDITIONS: Final = (
    "attribute_not_exists(pk)",
    "attribute_exists(pk)",
    "rev = :rev",
    "rev < :rev AND attribute_exists(f)",
    "attribute_not_exists(pk) OR rev = :rev",
    "(rev = :rev OR rev <= :rev) AND (NOT attribute_exists(m.#q) OR begins_with(f, :text))",
    "rev <> :rev",
    "f >= :text",
    "rev BETWEEN :one AND :two",
    "m.#q = :text",
)
UPDATES: Final = (
    "SET rev = rev + :one, f = :text",
    "SET m.#q = :text",
    "SET m = :map, rev = :rev REMOVE f",
    "ADD rev :one",
    "ADD rev :one SET f = if_not_exists(f, :text) REMOVE m.#q",
    "REMOVE w, wp, d",
    "SET w = :text, wp = :bytes, d = :text, dn = :rev",
    "SET rev = rev - :one",
)
KEY_CONDITIONS: Final = (
    (None, "pk = :pk"),
    (None, "pk = :pk AND sk BETWEEN :low AND :high"),
    (None, "pk = :pk AND begins_with(sk, :low)"),
    (None, "pk = :pk AND sk > :low"),
    ("waiting", "w = :text"),
    ("waiting", "w = :text AND wp >= :bytes"),
    ("due", "d = :text AND dn < :rev"),
    ("listed", "l = :text"),
    ("listed", "l = :text AND n BETWEEN :one AND :rev"),
)


class RandomCalls:
    """Draws calls, each as the client's method and its parameters."""

    def __init__(self, random: Random, table: str) -> None:
        self._random = random
        self._table = table
        self._tokens: list[dict[str, Any]] = []

    def draw(self) -> tuple[str, dict[str, Any]]:
        """The next call."""
        (kind,) = self._random.choices(
            [self._put, self._update, self._delete, self._get, self._batch, self._query, self._transact],
            [4, 4, 1, 2, 1, 4, 5],
        )
        operation, request = kind()
        return operation, request

    def _placeholders(self, *texts: str | None) -> dict[str, Any]:
        draw = self._random
        values = {
            ":rev": {"N": str(draw.randrange(4))},
            ":one": {"N": "1"},
            ":two": {"N": "2"},
            ":text": {"S": draw.choice(["x", "y", "xy"])},
            ":bytes": {"B": bytes([draw.randrange(3), 255])},
            ":map": {"M": {"q.1": {"S": "paused"}, "other": {"S": "x"}}},
            ":pk": {"S": draw.choice(["a", "b#ü", "none"])},
            ":low": {"S": draw.choice(["E", "E#1", "0"])},
            ":high": {"S": "E#2"},
        }
        words = " ".join(text for text in texts if text).translate(str.maketrans("(),", "   ")).split()
        used = {name: value for name, value in values.items() if name in words}
        names = {"#q": "q.1"} if any("#q" in word for word in words) else {}
        return ({"ExpressionAttributeValues": used} if used else {}) | (
            {"ExpressionAttributeNames": names} if names else {}
        )

    def _condition(self) -> str | None:
        return self._random.choice(CONDITIONS) if self._random.random() < 0.6 else None

    def _write(self, update: str | None = None) -> dict[str, Any]:
        condition = self._condition()
        request = {"TableName": self._table, **self._placeholders(condition, update)}
        if condition is not None:
            request["ConditionExpression"] = condition
        if update is not None:
            request["UpdateExpression"] = update
        if self._random.random() < 0.3:
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        return request

    def _item(self) -> dict[str, Any]:
        draw = self._random
        text = draw.choice(["x", "y"])
        more: dict[str, Any] = {
            "rev": {"N": str(draw.randrange(4))},
            "f": {"S": text},
            "m": {"M": {"q.1": {"S": text}}},
            "r": {"B": draw.randbytes(draw.choice([0, 10, 2_000]))},
            "w": {"S": text},
            "wp": {"B": bytes([draw.randrange(3), 255])},
            "d": {"S": text},
            "dn": {"N": str(draw.randrange(4))},
            "l": {"S": text},
            "n": {"N": str(draw.randrange(4))},
            "dead": {"BOOL": True},
        }
        return draw.choice(KEYS) | {name: value for name, value in more.items() if draw.random() < 0.7}

    def _put(self) -> tuple[str, dict[str, Any]]:
        return "put_item", self._write() | {"Item": self._item()}

    def _update(self) -> tuple[str, dict[str, Any]]:
        more = {"ReturnValues": self._random.choice(["NONE", "ALL_NEW"])}
        request = self._write(self._random.choice(UPDATES))
        return "update_item", request | {"Key": self._random.choice(KEYS)} | more

    def _delete(self) -> tuple[str, dict[str, Any]]:
        return "delete_item", self._write() | {"Key": self._random.choice(KEYS)}

    def _get(self) -> tuple[str, dict[str, Any]]:
        request = {"TableName": self._table, "Key": self._random.choice(KEYS), "ConsistentRead": True}
        return "get_item", request

    def _batch(self) -> tuple[str, dict[str, Any]]:
        keys = self._random.sample(KEYS, self._random.randrange(1, len(KEYS)))
        return "batch_get_item", {"RequestItems": {self._table: {"Keys": keys, "ConsistentRead": True}}}

    def _query(self) -> tuple[str, dict[str, Any]]:
        index, condition = self._random.choice(KEY_CONDITIONS)
        request = {"TableName": self._table, "KeyConditionExpression": condition, **self._placeholders(condition)}
        if index is not None:
            request["IndexName"] = index
        else:
            request["ConsistentRead"] = True
        if self._random.random() < 0.4:
            request["ScanIndexForward"] = False
        if self._random.random() < 0.4:
            request["Limit"] = self._random.randrange(1, 5)
        return "query", request

    def _transact(self) -> tuple[str, dict[str, Any]]:
        if self._tokens and self._random.random() < 0.2:
            return "transact_write_items", self._random.choice(self._tokens)
        keys = self._random.sample(KEYS, self._random.randrange(1, 4))
        items = []
        for key in keys:
            kind = self._random.choice(["Put", "Update", "Delete", "ConditionCheck"])
            if kind == "Put":
                request = self._write() | {"Item": self._item() | key}
            elif kind == "Update":
                request = self._write(self._random.choice(UPDATES)) | {"Key": key}
            else:
                request = self._write() | {"Key": key}
                if kind == "ConditionCheck" and "ConditionExpression" not in request:
                    request["ConditionExpression"] = "attribute_exists(pk)"
            items.append({kind: request})
        if self._random.random() < 0.05:
            items.append(items[0])
        request = {"TransactItems": items, "ClientRequestToken": f"{self._table}-{len(self._tokens)}"}
        self._tokens.append(request)
        return "transact_write_items", request


def outcome(client: Any, operation: str, request: dict[str, Any]) -> object:
    """What a call came to, as far as it has to be the same everywhere."""
    call: Callable[..., dict[str, Any]] = getattr(client, operation)
    try:
        answer = call(**request)
    except ClientError as error:
        reasons = error.response.get("CancellationReasons", ())
        kept = [(reason.get("Code"), reason.get("Item")) for reason in reasons]
        return error.response["Error"]["Code"], kept, error.response.get("Item")
    kept = {name: value for name, value in answer.items() if name not in {"ResponseMetadata", "ConsumedCapacity"}}
    for found in kept.get("Responses", {}).values():
        found.sort(key=lambda item: (item["pk"]["S"], item["sk"]["S"]))
    return kept
