"""What holds for every test, however pytest itself was started."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from tests.postgresql.serving import VERSIONS, Server, Servers

settings.register_profile("untimed", deadline=None)  # a busy machine fails no test
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """Make hypothesis's table of all characters: in a new clone this takes seconds, which no test has to spare."""
    st.text().validate()


@pytest.fixture(scope="session", autouse=True)
def signals_that_children_hear() -> None:
    """Start processes with default signals: an ignored signal is inherited, one with a handler is not.

    A shell's background job ignores SIGINT, and what nohup starts ignores SIGHUP.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)


@pytest.fixture(scope="session")
def postgresql_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers by version; their logs are in the folder of this run."""
    servers = Servers(tmp_path_factory.mktemp("postgresql"))
    yield servers
    servers.close()


@pytest.fixture(params=VERSIONS, ids=lambda version: f"postgresql-{version}")
def postgresql(request: pytest.FixtureRequest, postgresql_servers: Servers) -> Server:
    """A running server, of each version in turn."""
    return postgresql_servers(request.param)


@pytest.fixture
def database(postgresql: Server) -> Iterator[str]:
    """URL of a new database, of each version in turn."""
    name = postgresql.database()
    yield postgresql.url(name)
    postgresql.drop(name)
