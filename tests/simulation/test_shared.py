"""The simulated server of several brokers: each law of an engine holds on it, on one handle and on three in turn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import pytest

from airunner.broker.lifecycle.commands import Applied, Command, Done, TenantRequest
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Identity
from airunner.protocol.replies import JobsLeased
from tests.conformance.driving import Driver, release
from tests.conformance.exercise import LARGE, LAWS
from tests.conformance.machine import StoreAndModel
from tests.simulation.shared import Server
from tests.simulation.sharedengine import Direct, SharedEngine


def opened(server: Server, name: str) -> Store:
    identity = Identity(broker=name, fleet="fleet", requests="", events="")
    return Store(SharedEngine(server, Direct(server), identity))


class Rotation(Store):
    """Several stores of one database: each batch goes to the next."""

    def __init__(self, stores: Sequence[Store]) -> None:
        super().__init__(stores[0].engine)
        self._turns = cycle(stores)

    def apply(self, commands: Sequence[Command], now_ms: int) -> Applied:
        return next(self._turns).apply(commands, now_ms)

    def read(self, commands: Sequence[TenantRequest]) -> list[Done]:
        return next(self._turns).read(commands)


@pytest.fixture(params=[1, 3])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(Server, "require_unfenced", lambda *_: None)  # they are one broker: a law has one clock
    server = Server()
    return Rotation([opened(server, "broker") for _ in range(request.param)])


@pytest.mark.parametrize("law", LAWS)
def test_the_server_keeps_the_law(law: str, store: Store) -> None:
    if law in LARGE:
        pytest.skip("it is about large amounts, which no simulation has")
    LAWS[law](Driver(store))


def test_a_broker_cannot_take_back_a_lease_that_another_has_told() -> None:
    server = Server()
    one, other = (Driver(opened(server, name)) for name in ("one", "other"))
    other.submit()
    dequeue = one.dequeue()
    first, again = (driver.outcome(dequeue, request_id=b"r" * 16) for driver in (one, other))
    assert (first.news.repeated, again.news.repeated) == (False, True)
    assert isinstance(again.reply, JobsLeased)
    assert first.reply == again.reply
    one.refused("stale-token", release(again.reply.leases[0]), request_id=b"r" * 16)


@pytest.mark.parametrize("seed", range(4))
def test_the_server_does_what_the_model_does(seed: int, store: Store) -> None:
    StoreAndModel(store, seed).run()
