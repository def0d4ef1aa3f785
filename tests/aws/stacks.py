"""Stacks of the CloudFormation file in an emulator that has CloudFormation, and brokers whose clock stands still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from airunner.broker.store.awserrors import open_client
from airunner.broker.store.awsurl import AwsUrl
from airunner.broker.store.contract import Identity
from airunner.broker.store.dynamodb.engine import DynamoEngine
from airunner.broker.store.dynamodb.opening import open_table
from airunner.broker.store.dynamodb.table import CALLS_MAX, Edges
from airunner.transport.ports import SYSTEM
from tests.aws.serving import Account
from tests.aws.template import FILE


class Stack:
    """Stack that was applied, and its outputs."""

    def __init__(self, aws: Account, name: str, outputs: dict[str, str]) -> None:
        self.aws = aws
        self.name = name
        self.outputs = outputs

    @property
    def url(self) -> str:
        """URL of its store in the emulator."""
        assert self.aws.url
        return f"{self.outputs['StoreUrl']}&endpoint={quote(self.aws.url, safe=':/')}"


@contextmanager
def applied(aws: Account, **parameters: str) -> Iterator[Stack]:
    """Apply the file with parameters, for a new table, and delete all of it at the end."""
    name = aws.name_of_table()
    cloudformation = aws.client("cloudformation")
    given = {"Name": name, "DeletionProtection": "false"} | parameters
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=FILE.read_text(),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name)
    (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    try:
        yield Stack(aws, name, {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]})
    finally:
        cloudformation.delete_stack(StackName=name)
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=name)
        aws.client().update_table(
            TableName=name, DeletionProtectionEnabled=False
        )  # the emulator takes "false" for true
        aws.drop(name)  # which outlives its stack


class Still(Edges):
    """Edges whose clock stands still: a batch is decided at the instant that the test says."""

    def steady_s(self) -> float:
        return 0.0


def open_still(url: str, broker: str = "one") -> DynamoEngine:
    """Open the store at a URL for a broker, with a clock that stands still."""
    parsed = AwsUrl.parse(url)
    client = open_client(parsed, "dynamodb", connections=CALLS_MAX)
    identity = Identity(broker=broker, fleet="ours", requests=f"tcp://{broker}:1", events=f"tcp://{broker}:2")
    return open_table(client, parsed.table, identity, SYSTEM.wall_ms, Still(), announces=parsed.bus is not None)
