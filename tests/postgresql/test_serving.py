"""Servers for tests: real, of the version that was asked for, and never left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.postgresql import serving as serving_module
from tests.postgresql.serving import ROLE, VERSIONS, Server, programs, require, serving

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(120)]  # a cluster is made first


def test_a_database_is_new_and_belongs_to_no_superuser(postgresql: Server, database: str):
    with psycopg.connect(database) as connection:
        version, role, tables = connection.execute(
            "SELECT current_setting('server_version_num')::int / 10000, current_user,"
            " (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace)"
        ).fetchone() or (0, "", 0)
    assert (version, role, tables) == (postgresql.version, ROLE, 0)
    with psycopg.connect(postgresql.url(tcp=True)) as connection:
        assert connection.info.host == "127.0.0.1"


KILLED = """
import sys
from pathlib import Path
from tests.postgresql import serving as serving_module
from tests.postgresql.serving import ROLE, VERSIONS, Server, programs, require, serving
with serving(int(sys.argv[1]), Path(sys.argv[2])) as server:
    print(server.root, server.port, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_and_its_files_end_with_a_killed_test_run(version: int, tmp_path: Path):
    require(version)
    command = [sys.executable, "-c", KILLED, str(version), str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        root, port = run.stdout.readline().split()
        run.kill()
        assert not run.stdout.read()  # to its end: the process that removes the files holds it open
    assert not Path(root).exists()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(f"postgresql://127.0.0.1:{port}/postgres")


def test_a_killed_server_starts_again_on_its_port_with_what_was_committed(tmp_path: Path):
    require(VERSIONS[0])
    with serving(VERSIONS[0], tmp_path / "log") as server:
        server.execute("CREATE TABLE kept (number int)", "INSERT INTO kept VALUES (1)")
        port = server.port
        server.kill()
        server.start()
        assert (server.port, server.execute("SELECT * FROM kept")) == (port, [(1,)])


def test_a_missing_version_is_skipped_in_words_but_fails_in_continuous_integration(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(serving_module.INSTALL, 14, "install it")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="PostgreSQL 14 is not on this machine: install it"):
        require(14)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="install it"):
        require(14)


def test_programs_in_a_private_folder_are_copied_with_their_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    require(18)
    folder = programs(18)
    assert folder
    package = folder.parent.parent
    shutil.copytree(folder.parent, tmp_path / package.name / folder.parent.name, symlinks=True)
    shutil.copytree(f"{package}.libs", tmp_path / f"{package.name}.libs")
    private = tmp_path / package.name / folder.parent.name / "bin"  # a test's folder is private
    monkeypatch.setattr(serving_module, "programs", lambda _: private)
    with serving(18, tmp_path / "log") as server:
        assert server.execute("SELECT 1") == [(1,)]
