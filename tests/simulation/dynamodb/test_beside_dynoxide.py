"""The fake DynamoDB and dynoxide, an independent implementation, answer the same random calls alike."""

from __future__ import annotations

from random import Random

import pytest

from tests.aws.serving import Emulators
from tests.simulation.dynamodb.client import fake_client
from tests.simulation.dynamodb.randomcalls import RandomCalls, outcome

CALLS = 400


@pytest.mark.parametrize("seed", range(3))
def test_both_answer_alike(seed: int, aws_emulators: Emulators) -> None:
    account = aws_emulators("dynoxide")
    name, client = account.create(), account.client(retries={"total_max_attempts": 10})
    fake = fake_client(name)
    calls = RandomCalls(Random(seed), name)
    for number in range(CALLS):
        operation, request = calls.draw()
        theirs, ours = (outcome(each, operation, request) for each in (client, fake))
        assert ours == theirs, f"call {number} of seed {seed}: {operation} {request}"
    account.drop(name)
