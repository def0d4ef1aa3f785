"""A scratch installation for each test, and real processes of it that never outlive the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import holding
from tests.acceptance.running import Cluster, Gate, RunningBroker, make_home, running_broker, running_cluster, warm
from tests.acceptance.test_plain_msgpack import Map, Plain
from tests.acceptance.webserver import RunningWeb
from tests.postgresql.serving import VERSIONS, Servers

TIMEOUT_S = 120  # a cluster and a dozen commands, one after the other, on a busy machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(autouse=True, scope="session")
def warm_interpreter() -> Iterator[None]:
    with warm():
        yield


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with every key."""
    make_home(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.fixture
def broker(home: Path) -> Iterator[RunningBroker]:
    """A broker whose store ends with it."""
    with running_broker(home, "memory:") as running:
        yield running


@pytest.fixture
def unforked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each airunner is started as users start it: a fork has what its parent has imported."""
    monkeypatch.setattr("tests.acceptance.running._warm", [])


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    """A broker whose store is on disk, so that `kill` and `start` lose nothing; agents are added by the test."""
    with running_cluster(home) as running:
        yield running


@pytest.fixture
def web(cluster: Cluster) -> Iterator[RunningWeb]:
    """A web server of the cluster's home; `kill` and `start` it, or make logins of any roles."""
    running = RunningWeb(cluster)
    yield running
    running.close()


@pytest.fixture
def store(postgresql_servers: Servers) -> Iterator[str]:
    """URL of a new database, on a server of the oldest version."""
    server = postgresql_servers(VERSIONS[0])
    name = server.database()
    yield server.url(name)
    server.drop(name)


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with an agent, for tests that look at their own jobs alone and leave everything running."""
    home = tmp_path_factory.mktemp("standing") / "home"
    make_home(home)
    with running_cluster(home) as running:
        running.agent(spawn=2)
        yield running


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """One broker for all who are refused: none of them may change anything."""
    home = tmp_path_factory.mktemp("doors") / "home"
    make_home(home)
    # The owner looks at all that it has before and after each test, which is more than a tenant may ask a second.
    with running_broker(home, "memory:", "--tenant-requests", "1000000") as running:
        yield running


@pytest.fixture(scope="module")
def owner(door: RunningBroker) -> Iterator[Plain]:
    """Whoever owns the jobs that the others are after."""
    with Plain(door, holding.token(door, "owner")) as plain:
        yield plain


@pytest.fixture(scope="module")
def held(owner: Plain) -> Map:
    """The owner's running job: its id, attempt and true task token."""
    return holding.take_hold(owner)


@pytest.fixture
def nothing_changes(owner: Plain, held: Map) -> Iterator[None]:
    """Whatever the test does, the owner finds all as it was."""
    assert held
    before = holding.state(owner)
    yield
    assert holding.state(owner) == before
