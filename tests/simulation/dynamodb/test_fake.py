"""The fake DynamoDB answers as AWS documents: conditions, updates, transactions, limits, late indexes and units."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from tests.simulation.dynamodb.client import Client, fake_client
from tests.simulation.dynamodb.server import Server
from tests.simulation.dynamodb.table import FED_LATE_S, Table

T = "airunner"


def key(sk: str = "0", pk: str = "p") -> dict[str, dict[str, str]]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def put(item: dict, **more: object) -> dict:
    return {"Put": {"TableName": T, "Item": item, **more}}


def code_of(failed: pytest.ExceptionInfo[ClientError]) -> str:
    return failed.value.response["Error"]["Code"]


@pytest.fixture
def client() -> Client:
    return fake_client(T)


def rev(client: Client, sk: str = "0") -> str | None:
    item = client.get_item(TableName=T, Key=key(sk), ConsistentRead=True).get("Item")
    return None if item is None else item["rev"]["N"]


IS_REV = {
    "ConditionExpression": "rev = :r",
    "ExpressionAttributeValues": {":r": {"N": "1"}},
}


def test_a_write_whose_condition_fails_changes_nothing(client: Client) -> None:
    client.put_item(TableName=T, Item=key() | {"rev": {"N": "1"}}, ConditionExpression="attribute_not_exists(pk)")
    with pytest.raises(ClientError) as failed:
        client.put_item(TableName=T, Item=key() | {"rev": {"N": "9"}}, ConditionExpression="attribute_not_exists(pk)")
    assert code_of(failed) == "ConditionalCheckFailedException"
    assert rev(client) == "1"


def test_a_transaction_does_all_or_nothing_and_says_which_condition_failed(client: Client) -> None:
    client.put_item(TableName=T, Item=key() | {"rev": {"N": "2"}})
    with pytest.raises(ClientError) as failed:
        client.transact_write_items(
            TransactItems=[
                put(key("1") | {"rev": {"N": "1"}}),
                put(key() | {"rev": {"N": "2"}}, **IS_REV, ReturnValuesOnConditionCheckFailure="ALL_OLD"),
            ]
        )
    assert code_of(failed) == "TransactionCanceledException"
    first, second = failed.value.response["CancellationReasons"]
    assert first == {"Code": "None"}
    assert (second["Code"], second["Item"]["rev"]) == ("ConditionalCheckFailed", {"N": "2"})
    assert rev(client, "1") is None


def test_a_transaction_that_is_repeated_with_its_token_is_done_once() -> None:
    clock = [0.0]
    client = Client(Server({T: Table()}, lambda: clock[0]))
    add = {"Update": {"TableName": T, "Key": key(), "UpdateExpression": "ADD rev :r", **_values(IS_REV)}}
    for _ in range(3):
        client.transact_write_items(TransactItems=[add], ClientRequestToken="t")
    assert rev(client) == "1"
    with pytest.raises(ClientError) as failed:
        client.transact_write_items(TransactItems=[put(key())], ClientRequestToken="t")
    assert code_of(failed) == "IdempotentParameterMismatchException"
    clock[0] = 601.0
    client.transact_write_items(TransactItems=[add], ClientRequestToken="t")
    assert rev(client) == "2"


def _values(request: dict) -> dict:
    return {name: value for name, value in request.items() if name != "ConditionExpression"}


def test_a_cancelled_transaction_is_tried_again_with_its_token(client: Client) -> None:
    items = [put(key() | {"rev": {"N": "2"}}, **IS_REV)]
    with pytest.raises(ClientError):
        client.transact_write_items(TransactItems=items, ClientRequestToken="t")
    client.put_item(TableName=T, Item=key() | {"rev": {"N": "1"}})
    client.transact_write_items(TransactItems=items, ClientRequestToken="t")
    assert rev(client) == "2"


@pytest.mark.parametrize(
    "items",
    [
        [],
        [put(key(str(number))) for number in range(101)],
        [put(key()), {"Delete": {"TableName": T, "Key": key()}}],
        [put(key(str(number)) | {"b": {"B": bytes(390_000)}}) for number in range(11)],
        [put(key() | {"w": {"S": ""}, "wp": {"B": b"1"}})],
        [put(key() | {"n": {"S": "1"}, "l": {"S": "1"}})],
        [put(key(), ConditionExpression="at = :v", ExpressionAttributeValues={":v": {"S": "1"}})],
        [put(key(), ConditionExpression="(rev = :v)", ExpressionAttributeValues={":v": {"N": "1"}, ":u": {"N": "1"}})],
        [
            put(
                key(),
                ConditionExpression="rev BETWEEN :v AND :u",
                ExpressionAttributeValues={":v": {"N": "2"}, ":u": {"N": "1"}},
            )
        ],
        [put(key(), ConditionExpression="((rev = :v))", ExpressionAttributeValues={":v": {"N": "1"}})],
    ],
)
def test_what_aws_does_not_take_is_refused(client: Client, items: list[dict]) -> None:
    with pytest.raises(ClientError) as failed:
        client.transact_write_items(TransactItems=items)
    reasons = failed.value.response.get("CancellationReasons", [])
    assert code_of(failed) == "ValidationException" or reasons[0]["Code"] == "ValidationError"
    assert rev(client) is None


def test_an_item_has_at_most_400_kb(client: Client) -> None:
    with pytest.raises(ClientError, match="Item size"):
        client.put_item(TableName=T, Item=key() | {"b": {"B": bytes(400 * 1_024)}})
    client.put_item(TableName=T, Item=key() | {"b": {"B": bytes(400 * 1_024 - 7)}})
    with pytest.raises(ClientError, match="Item size"):
        client.update_item(
            TableName=T, Key=key(), UpdateExpression="SET c = :c", ExpressionAttributeValues={":c": {"S": "123456"}}
        )


def test_an_update_changes_attributes_and_entries_of_maps(client: Client) -> None:
    client.put_item(TableName=T, Item=key() | {"m": {"M": {"a": {"S": "1"}}}, "gone": {"N": "1"}, "rev": {"N": "1"}})
    client.update_item(
        TableName=T,
        Key=key(),
        UpdateExpression="SET m.#q = :v, rev = rev + :one REMOVE gone, m.a ADD sum_of :one",
        ConditionExpression="rev = :one AND (attribute_exists(m.a) OR attribute_not_exists(pk))",
        ExpressionAttributeNames={"#q": "x.y"},
        ExpressionAttributeValues={":v": {"S": "paused"}, ":one": {"N": "1"}},
    )
    item = client.get_item(TableName=T, Key=key())["Item"]
    assert item == key() | {"m": {"M": {"x.y": {"S": "paused"}}}, "rev": {"N": "2"}, "sum_of": {"N": "1"}}


def test_an_index_is_fed_late_and_the_table_is_not() -> None:
    clock, late = [100.0], [0.0]
    client = Client(Server({T: Table(lambda: clock[0], lambda: late[0])}))

    def found() -> list[str]:
        wanted = {"KeyConditionExpression": "w = :w", "ExpressionAttributeValues": {":w": {"S": "q"}}}
        return [item["sk"]["S"] for item in client.query(TableName=T, IndexName="waiting", **wanted)["Items"]]

    client.put_item(TableName=T, Item=key("1") | {"w": {"S": "q"}, "wp": {"B": b"2"}})
    client.put_item(TableName=T, Item=key("2") | {"w": {"S": "q"}, "wp": {"B": b"1"}})
    assert found() == ["2", "1"]
    clock[0] += 1
    client.delete_item(TableName=T, Key=key("1"))
    assert found() == ["2"]
    late[0] = 0.5
    clock[0] += 0.1
    assert found() == ["2", "1"]
    late[0] = 2.0
    assert found() == []
    clock[0] += FED_LATE_S
    assert found() == ["2"]
    everything = client.query(
        TableName=T, KeyConditionExpression="pk = :p", ExpressionAttributeValues={":p": {"S": "p"}}
    )
    assert [item["sk"]["S"] for item in everything["Items"]] == ["2"]


def test_a_query_has_pages_in_both_directions(client: Client) -> None:
    for number in range(7):
        client.put_item(TableName=T, Item=key(f"E#{number}") | {"b": {"B": bytes(300_000)}})
    for forward in (True, False):
        found: list[str] = []
        start: dict = {}
        while True:
            page = client.query(
                TableName=T,
                KeyConditionExpression="pk = :p AND sk BETWEEN :a AND :b",
                ExpressionAttributeValues={":p": {"S": "p"}, ":a": {"S": "E#1"}, ":b": {"S": "E#5"}},
                ScanIndexForward=forward,
                ConsistentRead=True,
                **start,
            )
            found += [item["sk"]["S"] for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                break
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        assert found == [f"E#{number}" for number in ((1, 2, 3, 4, 5) if forward else (5, 4, 3, 2, 1))]


def test_units_are_those_of_the_price_list(client: Client) -> None:
    table = client.server.tables[T]
    entry = {"w": {"S": "q"}, "wp": {"B": b"1"}}

    def units(item: dict) -> float:
        before = table.units
        client.transact_write_items(TransactItems=[put(item)])
        return table.units - before

    assert units(key() | entry) == 2 + 1
    assert units(key() | entry | {"b": {"B": bytes(3_000)}}) == 2 * 3  # the entry stays as it is
    assert units(key() | entry | {"w": {"S": "other"}}) == 2 * 3 + 2  # the larger of before and after
    assert units(key()) == 2 + 1
    answer = client.put_item(TableName=T, Item=key() | entry, ReturnConsumedCapacity="INDEXES")
    assert answer["ConsumedCapacity"]["CapacityUnits"] == 2.0
    assert answer["ConsumedCapacity"]["GlobalSecondaryIndexes"] == {"waiting": {"CapacityUnits": 1.0}}


def test_what_expired_is_removed_when_it_is_over(client: Client) -> None:
    client.put_item(TableName=T, Item=key("1") | {"ttl": {"N": "100"}})
    client.put_item(TableName=T, Item=key("2") | {"ttl": {"N": "200"}})
    assert client.server.tables[T].remove_expired(150.0) == 1
    assert [item["sk"]["S"] for item in client.server.tables[T].items()] == ["2"]
