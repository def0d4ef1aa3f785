"""DynamoDB keeps every law, and does what the model does: with one broker, and with three that take turns.

It is dynoxide, MiniStack, and the fake of the simulation, which is in this process; on it the laws are measured.

A law on an emulator takes as many seconds as the law is long. So in each run of the suite three brokers keep the laws
on one emulator: dynoxide, or MiniStack where that is not installed. Laws about large amounts are left to one broker on
the fake. `make aws-laws` runs all of them on each, with one broker and with three.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count

import pytest

from tests.aws.fleets import fleet
from tests.aws.serving import ALL_LAWS as ALL
from tests.aws.serving import ENGINES, LESSER, Emulators
from tests.broker.store.dynamodb.opened import AtOnce
from tests.conformance import dynamocounters
from tests.conformance.driving import Driver
from tests.conformance.exercise import LARGE, LAWS
from tests.conformance.machine import StoreAndModel
from tests.conformance.rotation import OF_ONE_BROKER, Rotation
from tests.simulation.dynamodb.client import Client
from tests.simulation.dynamodb.server import Server
from tests.simulation.dynamodb.table import Table

pytestmark = pytest.mark.timeout(120)  # on a busy machine: some laws make tens of thousands of jobs
FAKE = "fake"
STEPS = 120  # of the model: each asks an emulator some fifteen times
TABLE = "airunner"
SHARED = {"dynoxide": (3,), "ministack": (3,), LESSER: ()}  # how many brokers
EACH = [
    pytest.param((name, brokers), marks=() if (name, brokers) == (FAKE, 1) else pytest.mark.unmeasured)
    for name in (FAKE, *ENGINES)
    for brokers in (1, 3)
    if ALL or brokers in SHARED.get(name, (1, 3))
]


@pytest.fixture(params=EACH, ids=lambda each: f"{each[0]}-{each[1]}-brokers")
def store(request: pytest.FixtureRequest, aws_emulators: Emulators) -> Iterator[Rotation]:
    name, brokers = request.param
    if name == FAKE:
        fake = Table(now_s=partial(next, count(0.0)))  # so it keeps few of the changes that late indexes would show
        with fleet(Client(Server({TABLE: fake})), TABLE, brokers, AtOnce) as engines:
            yield Rotation(engines)
            dynamocounters.require_right(fake.items())
        return
    account = aws_emulators(name)
    table = account.create()
    with fleet(account.tables, table, brokers) as engines:
        yield Rotation(engines)
        dynamocounters.require_right(dynamocounters.scan(account.tables, table))
    account.drop(table)


def skip_on_emulators(request: pytest.FixtureRequest) -> None:
    """Skip what takes an emulator long, unless everything is to be run."""
    if not ALL and FAKE not in request.node.name:
        pytest.skip("it takes an emulator long: `make aws-laws` runs it")


@pytest.mark.parametrize("law", LAWS)
def test_dynamodb_keeps_the_law_and_counts_right(law: str, store: Rotation, request: pytest.FixtureRequest):
    if store.brokers > 1 and law in OF_ONE_BROKER:
        pytest.skip("the law is about what one broker owns")
    if law in LARGE and not ALL and (store.brokers > 1 or FAKE not in request.node.name):
        pytest.skip("it takes long, and one broker keeps it on the fake: `make aws-laws` runs it")
    LAWS[law](Driver(store))


def test_dynamodb_does_what_the_model_does_and_counts_right(store: Rotation, request: pytest.FixtureRequest):
    skip_on_emulators(request)
    # Of a lease that another broker renews the deadline is set, and not kept if it is later, as the model does.
    several = store.brokers > 1
    StoreAndModel(store, store.brokers, visibility_ms=(2_000,), early=several).run(STEPS)
