"""moto's server is no DynamoDB: its transactions are not atomic, and it ignores their tokens.

So what passes on it proves nothing. The same exercises pass on dynoxide and on MiniStack, and have to fail on moto:
else they would find nothing at all.
"""

from __future__ import annotations

import pytest

from tests.aws.crowding import Crowd
from tests.aws.fleets import fleet
from tests.aws.serving import Account, Emulators

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(120)]
BROKERS = 4
ROUNDS_MAX = 10  # of a crowd, until moto has lost something


def complaints(account: Account) -> list[str]:
    """What is wrong after brokers of a new table have worked all at once."""
    table = account.create()
    with fleet(account.tables, table, BROKERS) as engines:
        crowd = Crowd(engines)
        crowd.run()
        found = crowd.complaints(account.tables, table)
    account.drop(table)
    return found


def done_twice(account: Account) -> bool:
    """Whether a transaction that is repeated with its token is done again."""
    table, client = account.create(), account.tables
    key = {"pk": {"S": "counted"}, "sk": {"S": "0"}}
    one = {":one": {"N": "1"}}
    added = {"Update": {"TableName": table, "Key": key, "UpdateExpression": "ADD n :one"}}
    added["Update"]["ExpressionAttributeValues"] = one
    for _ in range(2):
        client.transact_write_items(TransactItems=[added], ClientRequestToken="the same one")
    counted = client.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"]["n"]["N"]
    account.drop(table)
    return bool(counted == "2")


def test_brokers_that_work_all_at_once_lose_and_double_nothing(aws: Account):
    assert complaints(aws) == []


def test_a_repeated_transaction_is_done_once(aws: Account):
    assert not done_twice(aws)


def test_on_moto_they_do(aws_emulators: Emulators):
    moto = aws_emulators("moto")
    assert done_twice(moto)
    assert any(complaints(moto) for _ in range(ROUNDS_MAX))
