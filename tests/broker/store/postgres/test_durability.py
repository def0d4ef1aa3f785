"""What a server may lose is said, and what it cannot store is refused: standbys, settings, a full disk."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from airunner.broker.store.contract import Identity, StoreAway
from airunner.broker.store.postgres.connecting import Link
from airunner.broker.store.postgres.engine import open_postgres
from airunner.broker.store.postgres.opening import check_server, open_link
from airunner.broker.store.rows import Changes, Keys
from airunner.certs.findings import Severity
from airunner.doctor import _store
from airunner.protocol.errors import NoSpace, OperatorError
from tests.postgresql.serving import NOBODY, Server, require, serving
from tests.postgresql.standby import promote, standby_of
from tests.smalldisk import small_disk

pytestmark = pytest.mark.timeout(120)
ME = Identity(broker="0123456789ab", fleet="fleet-1", requests="tcp://127.0.0.1:7070", events="tcp://127.0.0.1:7071")
SMALL_MIB = 4
MIB = "SELECT decode(repeat('ab', 1048576), 'hex')"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def opened(url: str) -> Link:
    return open_link(url, ME, now_ms)[0]


@pytest.mark.parametrize("version", [15, 18])
def test_an_asynchronous_standby_is_warned_of_and_a_failover_is_followed(version: int, tmp_path: Path):
    require(version)
    with serving(version, tmp_path / "primary.log") as primary:
        name = primary.database()
        engine = open_postgres(primary.url(name), ME, now_ms)
        link = engine._trips.link
        with closing(engine), standby_of(primary, tmp_path / "standby.log") as standby:
            assert link.warnings == engine.warnings == []
            engine.begin()
            engine.load(Keys(fleet=True))
            engine.save(Changes())
            engine.commit()
            (warning,) = engine.warnings
            assert "a standby is attached asynchronously: a failover to it loses acknowledged work" in warning
            assert [finding.message for finding in _store(primary.url(name))] == [warning]
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()")
            primary.wait_for("SELECT sync_state FROM pg_stat_replication", [("sync",)])
            link.reconnect()
            assert link.warnings == []
            (good,) = _store(primary.url(name))
            assert good.severity is Severity.GOOD
            (bad,) = _store(standby.url(name))
            assert bad.severity is Severity.BAD
            with pytest.raises(OperatorError, match="it is a read-only standby; name the primary too"):
                opened(standby.url(name))
            places = ",".join(f"127.0.0.1:{server.port}" for server in (standby, primary))
            both = primary.url(name, tcp=True).replace(f"127.0.0.1:{primary.port}", places)
            with closing(opened(both)) as followed:
                assert followed.connection.info.port == primary.port
                primary.kill()
                with pytest.raises(StoreAway), followed.translated():
                    followed.connection.execute("SELECT 1")
                promote(standby)
                followed.reconnect()
                assert followed.connection.info.port == standby.port


@pytest.mark.parametrize("version", [15, 18])
def test_settings_that_lose_acknowledged_work_are_warned_of(version: int, tmp_path: Path):
    require(version)
    with serving(version, tmp_path / "log", fsync="off", synchronous_commit="off") as server:
        name = server.database()
        with closing(opened(server.url(name))) as link:
            assert [warning.split(":")[0] for warning in link.warnings] == ["fsync is off", "synchronous_commit is off"]


def test_a_full_disk_is_refused_in_words_and_can_be_used_again_with_room(postgresql: Server):
    with small_disk(postgresql.root / "small", f"{SMALL_MIB}m", uid=NOBODY) as disk:
        place = f"small_{postgresql.version}"
        postgresql.execute(f"CREATE TABLESPACE {place} OWNER airunner LOCATION '{disk}'")
        name = postgresql.database()
        url = postgresql.url(name)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE public.fill (bytes bytea) TABLESPACE {place}".encode())
            connection.execute("ALTER TABLE public.fill ALTER bytes SET STORAGE EXTERNAL")
        with closing(Link(url, check_server)) as link:
            with pytest.raises(NoSpace, match="make room on the server's disk"), link.translated():
                link.connection.execute(f"INSERT INTO public.fill {MIB} FROM generate_series(1, {SMALL_MIB})".encode())
            postgresql.execute(f"ALTER DATABASE {name} SET default_tablespace = {place}")
            with pytest.raises(OperatorError, match="No space left on device; make room on the server's disk"):
                opened(url)
            with link.translated():
                link.connection.execute("DROP TABLE public.fill")
        opened(url).close()
        postgresql.drop(name)
        postgresql.execute(f"DROP TABLESPACE {place}")
