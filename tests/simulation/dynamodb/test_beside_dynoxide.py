"""The fake DynamoDB and dynoxide, an independent implementation, answer the same random calls alike."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from random import Random
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.acceptance.running import free_ports
from tests.simulation.dynamodb.client import fake_client
from tests.simulation.dynamodb.randomcalls import RandomCalls, outcome
from tests.simulation.dynamodb.table import INDEXES, TABLE

CALLS = 400
T = "airunner"


@pytest.fixture(scope="module")
def dynoxide() -> Iterator[Any]:
    program = shutil.which("dynoxide")
    if program is None:
        pytest.skip("dynoxide is not installed")
    (port,) = free_ports(1)
    with subprocess.Popen([program, "--port", str(port)], stdout=subprocess.DEVNULL) as process:
        client = boto3.client(
            "dynamodb",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=Config(retries={"max_attempts": 10}),
        )
        yield client
        process.kill()


def create(client: Any, name: str) -> None:
    indexes = [TABLE, *INDEXES.values()]
    types = {index.partition: index.partition_type for index in indexes}
    types |= {index.sort: index.sort_type for index in indexes}
    schemas = [
        [
            {"AttributeName": index.partition, "KeyType": "HASH"},
            {"AttributeName": index.sort, "KeyType": "RANGE"},
        ]
        for index in indexes
    ]
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind in types.items()],
        KeySchema=schemas[0],
        GlobalSecondaryIndexes=[
            {"IndexName": name, "KeySchema": schema, "Projection": {"ProjectionType": "KEYS_ONLY"}}
            for name, schema in zip(INDEXES, schemas[1:], strict=True)
        ],
    )


@pytest.mark.parametrize("seed", range(3))
def test_both_answer_alike(seed: int, dynoxide: Any) -> None:
    name = f"{T}-{seed}"
    create(dynoxide, name)
    fake = fake_client(name)
    calls = RandomCalls(Random(seed), name)
    for number in range(CALLS):
        operation, request = calls.draw()
        theirs, ours = (outcome(client, operation, request) for client in (dynoxide, fake))
        assert ours == theirs, f"call {number} of seed {seed}: {operation} {request}"
