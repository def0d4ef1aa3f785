"""What holds for every test, however pytest itself was started."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from tests.aws.recorder import Recorder, brokers_rights, recording
from tests.aws.serving import ENGINES, Account, Emulators
from tests.postgresql.serving import VERSIONS, Server, Servers

COVERAGE_VARIABLE = "COVERAGE_PROCESS_CONFIG"
settings.register_profile("untimed", deadline=None)  # a busy machine fails no test
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """Make hypothesis's table of all characters: in a new clone this takes seconds, which no test has to spare."""
    st.text().validate()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test that is marked `unmeasured`, and the programs that it starts, without coverage."""
    if item.get_closest_marker("unmeasured") is None:
        return (yield)
    trace, trace_of_threads = sys.gettrace(), threading.gettrace()
    config = os.environ.pop(COVERAGE_VARIABLE, None)  # how coverage reaches what a measured process starts
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type] - as its documentation says
    try:
        return (yield)
    finally:
        threading.settrace(trace_of_threads)  # type: ignore[arg-type] - None, as above
        sys.settrace(trace)
        if config is not None:
            os.environ[COVERAGE_VARIABLE] = config


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


@pytest.fixture(scope="session")
def aws_emulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulators]:
    """Emulators of AWS by name; their logs are in the folder of this run.

    From then on no broker in this process calls what the policy of deploy/aws/airunner.yaml does not allow.
    """
    from botocore.loaders import create_loader

    emulators = Emulators(tmp_path_factory.mktemp("aws"))
    with recording(Recorder(brokers_rights())), pytest.MonkeyPatch.context() as patch:
        # Each session of boto3 would read the models of AWS again, which takes six times as long as all else of it.
        patch.setattr("botocore.session.create_loader", cache(create_loader))
        yield emulators
    emulators.close()


@pytest.fixture(params=ENGINES)
def aws(request: pytest.FixtureRequest, aws_emulators: Emulators) -> Account:
    """A running emulator of those that keep every law, each in turn; and the real account, where one is named."""
    return aws_emulators(request.param)


@pytest.fixture
def aws_table(aws: Account) -> Iterator[str]:
    """Name of a new table with the engine's indexes, in each of those in turn."""
    table = aws.create()
    yield table
    aws.drop(table)
