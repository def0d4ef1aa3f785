"""Calls of the table: which errors are tried again, with the same token, and what the others mean to a broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError

from airunner.broker.peerwatch import DEAD_S
from airunner.broker.store.contract import Moved, StoreAway, StoreUnsure
from airunner.broker.store.dynamodb.table import BYTES_MAX, ROWS_MAX, TRIES_MAX, Edges, Table
from airunner.protocol.errors import OperatorError
from tests.broker.store.dynamodb.opened import TABLE, AtOnce

PUT = {"Put": {"TableName": TABLE, "Item": {"pk": {"S": "a"}, "sk": {"S": "0"}}}}
TOKEN = "0123456789abcdef"
DONE: dict[str, Any] = {"ConsumedCapacity": []}


class Scripted:
    """A client that answers each call by what a list says."""

    def __init__(self, *answers: Exception | dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def __getattr__(self, _: str) -> Callable[..., dict[str, Any]]:
        def call(**asked: Any) -> dict[str, Any]:
            self.asked.append(asked)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def refused(code: str, *reasons: str, status: int = 400) -> ClientError:
    """What botocore raises when the service has answered with an error."""
    answer: dict[str, Any] = {
        "Error": {"Code": code, "Message": "so it is"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    if reasons:
        answer["CancellationReasons"] = [{"Code": reason} for reason in reasons]
    return ClientError(answer, "Any")


CANCELLED = "TransactionCanceledException"
LOST = ReadTimeoutError(endpoint_url="http://there")
BUSY = (
    refused(CANCELLED, "None", "TransactionConflict"),
    refused(CANCELLED, "ThrottlingError", "None"),
    refused(CANCELLED, "ProvisionedThroughputExceeded"),
    refused("TransactionInProgressException"),
    refused("ThrottlingException"),
    refused("ProvisionedThroughputExceededException"),
    refused("RequestLimitExceeded"),
)
UNSURE = (refused("InternalServerError", status=500), refused("ServiceUnavailable", status=503), LOST)
NOT_SENT = (EndpointConnectionError(endpoint_url="http://there"), ConnectTimeoutError(endpoint_url="http://there"))


@pytest.mark.parametrize("error", [*BUSY, *UNSURE, *NOT_SENT], ids=str)
def test_a_transaction_is_tried_again_with_the_same_token(error: Exception):
    client = Scripted(error, error, DONE)
    Table(client, TABLE, AtOnce()).transact([PUT], TOKEN)
    assert [asked["ClientRequestToken"] for asked in client.asked] == [TOKEN] * 3


@pytest.mark.parametrize(
    ("errors", "raised"),
    [(BUSY, StoreAway), (NOT_SENT, StoreAway), (UNSURE, StoreUnsure), ((LOST, BUSY[0]), StoreUnsure)],
    ids=["busy", "not sent", "no answer", "no answer, then busy"],
)
def test_one_that_fails_for_long_is_given_up_as_what_is_known_of_it(
    errors: tuple[Exception, ...], raised: type[StoreAway]
):
    client = Scripted(*errors)
    with pytest.raises(StoreAway, match=f"the store in the DynamoDB table {TABLE}: ") as caught:
        Table(client, TABLE, AtOnce()).transact([PUT], TOKEN)
    assert (type(caught.value), len(client.asked)) == (raised, TRIES_MAX)


def test_a_condition_that_fails_is_decided_again_at_once():
    client = Scripted(refused(CANCELLED, "None", "ConditionalCheckFailed"))
    with pytest.raises(Moved):
        Table(client, TABLE, AtOnce()).transact([PUT], TOKEN)
    assert len(client.asked) == 1


@pytest.mark.parametrize("error", [*UNSURE, LOST], ids=str)
def test_a_condition_that_fails_after_a_try_without_an_answer_may_be_that_trys_own_doing(error: Exception):
    client = Scripted(error, refused(CANCELLED, "ConditionalCheckFailed"))
    with pytest.raises(StoreUnsure):
        Table(client, TABLE, AtOnce()).transact([PUT], TOKEN)


@pytest.mark.parametrize("reason", ["ConditionalCheckFailed", "ValidationError", "ItemCollectionSizeLimitExceeded"])
def test_each_reason_among_others_means_what_it_means_alone(reason: str):
    client = Scripted(refused(CANCELLED, "TransactionConflict", reason))
    with pytest.raises(Moved if reason == "ConditionalCheckFailed" else OperatorError):
        Table(client, TABLE, AtOnce()).transact([PUT], TOKEN)
    assert len(client.asked) == 1


@pytest.mark.parametrize(
    "code", ["AccessDeniedException", "ResourceNotFoundException", "ValidationException", "UnrecognizedClientException"]
)
def test_what_no_retry_mends_ends_the_broker_with_awss_code(code: str):
    with pytest.raises(OperatorError, match=f"cannot use the store in the DynamoDB table {TABLE}: {code}: so it is"):
        Table(Scripted(refused(code)), TABLE, AtOnce()).transact([PUT], TOKEN)


def test_an_error_of_this_program_is_not_taken_for_one_of_aws():
    with pytest.raises(ZeroDivisionError):
        Table(Scripted(ZeroDivisionError()), TABLE, AtOnce()).transact([PUT], TOKEN)


def test_a_single_write_whose_condition_fails_says_so():
    table = Table(Scripted(refused("ConditionalCheckFailedException")), TABLE, AtOnce())
    assert not table.put(PUT["Put"]["Item"], "attribute_not_exists(pk)")
    assert not table.delete(("a", "0"), "attribute_exists(pk)")


def test_keys_that_were_not_read_are_read_again_and_too_many_pauses_are_an_outage():
    key = {"pk": {"S": "a"}, "sk": {"S": "0"}}
    left = {"Responses": {}, "UnprocessedKeys": {TABLE: {"Keys": [key]}}}
    found = {"Responses": {TABLE: [{**key, "rev": {"N": "7"}}]}}
    assert Table(Scripted(left, found), TABLE, AtOnce()).get([("a", "0")])["a", "0"]["rev"] == {"N": "7"}
    client = Scripted(left)
    with pytest.raises(StoreAway, match="ProvisionedThroughputExceededException"):
        Table(client, TABLE, AtOnce()).get([("a", "0")])
    assert len(client.asked) == TRIES_MAX


@pytest.mark.parametrize(
    "actions",
    [
        [{"Put": {"Item": {"pk": {"S": str(number)}, "sk": {"S": "0"}}}} for number in range(ROWS_MAX + 1)],
        [{"Put": {"Item": {"pk": {"S": "a"}, "sk": {"S": "0"}, "e": {"B": bytes(BYTES_MAX)}}}}],
        [PUT, PUT],
    ],
    ids=["items", "bytes", "twice"],
)
def test_a_transaction_beyond_dynamodbs_bounds_is_never_sent(actions: list[dict[str, Any]]):
    client = Scripted({})
    with pytest.raises(AssertionError, match="in a transaction"):
        Table(client, TABLE, AtOnce()).transact(actions, TOKEN)
    assert client.asked == []


def test_pauses_grow_up_to_a_bound():
    pauses: list[float] = []

    class Noted(AtOnce):
        def pause(self, seconds: float) -> None:
            pauses.append(seconds)

    with pytest.raises(StoreAway):
        Table(Scripted(BUSY[0]), TABLE, Noted()).transact([PUT], TOKEN)
    assert len(pauses) == TRIES_MAX - 1
    assert 0.02 < 2 * pauses[0] < sum(pauses) < 5


def test_calls_inside_of_calls_that_run_side_by_side_do_not_wait_for_each_other():
    edges = Edges()
    nested = [lambda: edges.run_all([lambda: 1, lambda: 2])] * 32
    assert edges.run_all(nested) == [[1, 2]] * 32
    edges.close()


def test_a_call_is_given_up_before_its_broker_is_taken_for_dead():
    edges = AtOnce()
    now_s = [0.0]
    edges.steady_s = lambda: now_s[0]

    def hang() -> dict[str, Any]:
        now_s[0] += 3
        raise LOST

    client = Scripted({})
    client.transact_write_items = lambda **_: hang()
    with pytest.raises(StoreUnsure):
        Table(client, TABLE, edges).transact([PUT], TOKEN)
    assert now_s[0] < DEAD_S


def test_an_answer_that_is_not_dynamodbs_is_no_answer():
    client = Scripted({}, {"html": "log in first"}, DONE)
    Table(client, TABLE, AtOnce()).transact([PUT], TOKEN)
    assert [asked["ClientRequestToken"] for asked in client.asked] == [TOKEN] * 3
    with pytest.raises(StoreUnsure, match="without ConsumedCapacity"):
        Table(Scripted({}), TABLE, AtOnce()).transact([PUT], TOKEN)
    with pytest.raises(StoreAway, match="without Responses"):
        Table(Scripted({}), TABLE, AtOnce()).get([("a", "0")])
    with pytest.raises(StoreAway, match="without Items"):
        list(Table(Scripted({}), TABLE, AtOnce()).query("pk = :pk", {":pk": {"S": "a"}}))


def test_rights_that_are_withdrawn_from_a_broker_that_runs_are_an_outage_and_its_own_faults_its_end():
    table = Table(Scripted(refused("AccessDeniedException")), TABLE, AtOnce())
    table.is_open = True
    with pytest.raises(StoreAway, match="AccessDeniedException"):
        table.transact([PUT], TOKEN)
    table = Table(Scripted(refused("ValidationException")), TABLE, AtOnce())
    table.is_open = True
    with pytest.raises(OperatorError):
        table.transact([PUT], TOKEN)
