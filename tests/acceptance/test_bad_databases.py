"""What is wrong with a broker's database is said in one line that tells what to do, and shows no password."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.running import RunningBroker, environment, make_home, run


def test_a_broker_says_in_one_line_what_is_wrong_with_its_database(home: Path, database: str, tmp_path: Path) -> None:
    doors = ["--listen", "tcp://127.0.0.1:0", "--events", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"]

    def refused(store: str, home: Path = home) -> tuple[int, list[str]]:
        done = run(environment(home), "broker", *doors, "--store", store)
        return done.returncode, done.stderr.decode().splitlines()

    code, (line,) = refused("postgresql://me:sesame@127.0.0.1:1/jobs")
    assert (code, "me:***@127.0.0.1" in line, "sesame" in line) == (69, True, False)
    assert line.endswith("Connection refused; start PostgreSQL, or correct --store")
    broker = RunningBroker(home, database)
    try:
        code, (line,) = refused(database)
        assert (code, "a broker already runs in" in line) == (69, True)
        make_home(tmp_path / "other")
        code, (line,) = refused(database, tmp_path / "other")
        assert (code, "belongs to another fleet" in line) == (2, True)
        assert broker.process.running
    finally:
        assert broker.stop() == 0
