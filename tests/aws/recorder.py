"""Recorder of the rights that calls of AWS need: pairs of an action of IAM and the resource on which it is checked.

A transaction needs the actions of its items, and a call for several messages that of the call for one
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html,
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsqs.html).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.aws.template import Template

Right = tuple[str, str]  # an action, and the ARN of a resource without partition, region and account

WRITES: Final = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}
ONE_TABLE: Final = (
    "DeleteItem",
    "DescribeContinuousBackups",
    "DescribeTable",
    "DescribeTimeToLive",
    "GetItem",
    "PutItem",
    "UpdateItem",
)
ONE_QUEUE: Final = (
    "ChangeMessageVisibility",
    "DeleteMessage",
    "GetQueueAttributes",
    "GetQueueUrl",
    "ReceiveMessage",
    "SendMessage",
)


def rights_of(service: str, operation: str, asked: dict[str, Any]) -> Iterator[Right]:
    """The rights that a call needs."""
    match service, operation.removesuffix("Batch"):
        case "dynamodb", "TransactWriteItems":
            for action in asked["TransactItems"]:
                ((kind, item),) = action.items()
                yield f"dynamodb:{WRITES[kind]}", f"dynamodb:table/{item['TableName']}"
        case "dynamodb", "BatchGetItem":
            for table in asked["RequestItems"]:
                yield "dynamodb:BatchGetItem", f"dynamodb:table/{table}"
        case "dynamodb", "Query":
            index = f"/index/{asked['IndexName']}" if "IndexName" in asked else ""
            yield "dynamodb:Query", f"dynamodb:table/{asked['TableName']}{index}"
        case "dynamodb", one if one in ONE_TABLE:
            yield f"dynamodb:{one}", f"dynamodb:table/{asked['TableName']}"
        case "sqs", one if one in ONE_QUEUE:
            queue = asked.get("QueueName") or asked["QueueUrl"].rsplit("/", 1)[-1]
            yield f"sqs:{one}", f"sqs:{queue}"
        case "events", "DescribeEventBus":
            yield "events:DescribeEventBus", f"events:event-bus/{asked['Name'].rsplit('/', 1)[-1]}"
        case "events", "PutEvents":
            for entry in asked["Entries"]:
                yield "events:PutEvents", f"events:event-bus/{entry['EventBusName'].rsplit('/', 1)[-1]}"
        case _:
            raise AssertionError(f"no right is known for {service}:{operation}")


def rights_in(policy: dict[str, Any]) -> set[Right]:
    """The rights that a policy gives."""
    given: set[Right] = set()
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        actions, resources = statement["Action"], statement["Resource"]
        for action in [actions] if isinstance(actions, str) else actions:
            for arn in [resources] if isinstance(resources, str) else resources:
                _, _, service, _, _, resource = arn.split(":", 5)
                given.add((action, f"{service}:{resource}"))
    return given


class Recorder:
    """Recorder of the rights that the product's calls need in this process; what tests call themselves is left out."""

    def __init__(self, given: set[Right] | None = None) -> None:
        self.needed: set[Right] = set()
        self._given = given  # rights that a call must not exceed, with "TABLE" for the table's name; None: any

    def note(self, service: str, operation: str, asked: dict[str, Any]) -> None:
        """Note a call. Raises `AssertionError`: the policy does not allow it."""
        rights = set(rights_of(service, operation, asked))
        self.needed |= rights
        if self._given is not None:
            beyond = {right for right in map(of_any_table, rights) if right not in self._given}
            assert not beyond, f"the policy of deploy/aws/airunner.yaml does not allow {beyond}"


def of_any_table(right: Right) -> Right:
    """A right with "TABLE" for the name of the table, and of the queues and the bus that are named after it."""
    action, resource = right
    service, _, name = resource.partition(":")
    kinds = {"dynamodb": r"table/[^/]+", "events": r"event-bus/.+", "sqs": r".+?(?=-bells$|-submissions$)"}
    named = {"dynamodb": "table/TABLE", "events": "event-bus/TABLE", "sqs": "TABLE"}
    return action, f"{service}:{re.sub(kinds[service], named[service], name, count=1)}"


def is_of_the_product() -> bool:
    """Check whether a module of the broker has made this call."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("airunner.broker."):
            return True
        frame = frame.f_back
    return False


def brokers_rights() -> set[Right]:
    """The rights that the policy of deploy/aws/airunner.yaml gives to brokers, with "TABLE" for the table's name."""
    policy = Template(Name="TABLE").properties("BrokerPolicy")["PolicyDocument"]
    return rights_in(policy)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Record every call of AWS's API that the product makes while the block runs, by whatever client."""
    try:
        from botocore.client import BaseClient
    except ImportError:  # without boto3 nothing calls
        yield
        return
    call = BaseClient._make_api_call

    def record(self: Any, operation: str, asked: dict[str, Any]) -> Any:
        if is_of_the_product():
            recorder.note(self.meta.service_model.service_name, operation, asked)
        return call(self, operation, asked)

    BaseClient._make_api_call = record
    try:
        yield
    finally:
        BaseClient._make_api_call = call
