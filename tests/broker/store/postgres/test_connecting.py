"""The link to a PostgreSQL server: what is lost is noticed, and each error means what a broker can do about it."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest

from airunner.broker.store.contract import Moved, StoreAway, StoreUnsure
from airunner.broker.store.postgres.connecting import Link
from airunner.broker.store.postgres.opening import check_server
from airunner.broker.store.postgres.pipeline import Pipeline
from airunner.protocol.errors import NoSpace, OperatorError
from tests.postgresql.serving import VERSIONS, Server, require, serving

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def link(database: str) -> Iterator[Link]:
    with closing(Link(database, check_server)) as link:
        yield link


@pytest.fixture(scope="module", params=VERSIONS)
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that a test may stop."""
    require(request.param)
    with serving(request.param, tmp_path_factory.mktemp("own") / "log") as server:
        yield server


def fail(link: Link, code: str) -> None:
    link.connection.execute(f"DO $$ BEGIN RAISE EXCEPTION 'no more' USING ERRCODE = '{code}'; END $$".encode())


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        ("53100", NoSpace),
        ("53300", StoreAway),
        ("57P03", StoreAway),
        ("57014", StoreAway),
        ("25006", StoreAway),
        ("58030", StoreAway),
        ("40001", Moved),
        ("40P01", Moved),
        ("23505", Moved),
        ("40003", StoreUnsure),
        ("42501", OperatorError),
        ("XX001", OperatorError),
    ],
)
def test_an_error_of_the_server_is_translated(code: str, meant: type[Exception], link: Link):
    for committing in (False, True):  # the server said that it failed, so it is known
        with pytest.raises(Exception, match="no more") as failed, link.translated(committing=committing):
            fail(link, code)
        assert type(failed.value) is meant
        link.connection.execute("SELECT 1")


def test_a_fault_of_this_program_stays_what_it_is(link: Link):
    with pytest.raises(psycopg.errors.SyntaxError), link.translated():
        link.connection.execute("SELEC 1")


def step_out(link: Link) -> None:
    with link.connection.pipeline():
        link.connection.pgconn.send_query_params(b"SELECT 1", None)
        link.connection.pgconn.exit_pipeline_mode()


@pytest.mark.parametrize(("committing", "meant"), [(False, StoreAway), (True, StoreUnsure)])
def test_a_connection_that_libpq_finds_out_of_step_is_lost(*, committing: bool, meant: type[Exception], link: Link):
    guard = link.committing() if committing else link.translated()
    with pytest.raises(meant), guard:
        step_out(link)
    link.reconnect()
    assert link.connection.execute("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize(("committing", "meant"), [(False, StoreAway), (True, StoreUnsure)])
def test_a_connection_that_is_lost_is_away_before_commit_and_unsure_in_it(
    *, committing: bool, meant: type[Exception], link: Link, postgresql: Server
):
    postgresql.execute(f"SELECT pg_terminate_backend({link.connection.info.backend_pid}, 10000)")
    lose(link, meant, committing=committing)


def test_a_session_that_ended_while_it_was_idle_is_away_as_nothing_of_the_second_trip_was_read(link: Link):
    while not end_while_idle(link):
        link.reconnect()
    lose(link, StoreAway, committing=True)


def lose(link: Link, meant: type[Exception], *, committing: bool) -> None:
    with pytest.raises(StoreAway) as failed, link.translated(committing=committing):
        Pipeline(link.connection).run([("SELECT 1", ())])
    assert type(failed.value) is meant
    link.reconnect()
    link.connection.execute("SELECT 1")


def end_while_idle(link: Link) -> bool:
    """End a session between two trips. False: its last words came with the answer to the first, so they are read."""
    notices: list[psycopg.errors.Diagnostic] = []
    link.connection.add_notice_handler(notices.append)
    link.connection.execute("SET idle_in_transaction_session_timeout = '1ms'")
    with open(os.pidfd_open(link.connection.info.backend_pid)) as process:  # noqa: PTH123 - a descriptor
        link.connection.execute("BEGIN")
        select.select([process], [], [])  # it has closed its socket: what is sent to it reads its last words
    link.connection.pgconn.is_busy()  # parses what has been read
    return not notices


def test_a_server_that_is_killed_is_away_until_it_is_back(own: Server):
    with closing(Link(own.url(), check_server)) as link:
        own.kill()
        with pytest.raises(StoreAway), link.translated():
            link.connection.execute("SELECT 1")
        with pytest.raises(StoreAway, match="the store postgresql://"):
            link.reconnect()
        own.start()
        link.reconnect()
        link.connection.execute("SELECT 1")


def test_a_wait_for_a_standby_that_is_given_up_is_unsure(own: Server):
    own.stop()
    own.settings["synchronous_standby_names"] = "nowhere"
    own.start()

    def cancel() -> None:
        own.wait_for("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", [(1,)])
        own.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")

    with closing(Link(own.url(role="postgres"), check_server)) as link, ThreadPoolExecutor() as pool:
        cancelled = pool.submit(cancel)
        with pytest.raises(StoreUnsure, match="the wait for a standby of the store "), link.committing():
            link.connection.execute("CREATE TABLE kept ()")
        cancelled.result()
        with link.committing():  # the server had said that it is done, and a commit that waits for nothing is
            link.connection.execute("SELECT * FROM kept")
    own.stop()
    del own.settings["synchronous_standby_names"]
    own.start()


def test_the_second_host_is_used_when_the_first_is_gone(postgresql: Server):
    url = f"postgresql://airunner:open%2Fsesame@127.0.0.1:1,127.0.0.1:{postgresql.port}/postgres"
    with closing(Link(url, check_server)) as second:
        assert second.connection.info.port == postgresql.port
