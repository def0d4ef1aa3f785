"""What is wrong is said in one line that tells what to do, and the exit code is not 0; the doctor finds it before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.acceptance.running import Cluster, RunningBroker, environment, make_home, run, running_broker


def test_a_key_that_is_not_listed_is_not_let_in(broker: RunningBroker, home: Path) -> None:
    (home / "certs" / "allowed-clients").write_text("# nobody\n")
    for command in ("list", "agent"):
        done = run(environment(home, {"AIRUNNER_BROKER": broker.requests}), command)
        assert (done.returncode, b"allow-list" in done.stderr, b"Traceback" in done.stderr) == (77, True, False)


MORTAL = """
from airunner.__main__ import main
from airunner.broker.gatekeeper import Gatekeeper
async def fail(_):
    raise RuntimeError("the Gatekeeper was killed")
Gatekeeper.run = fail
main()
"""


def test_a_broker_whose_gatekeeper_fails_ends(home: Path) -> None:
    doors = ["--listen", "tcp://127.0.0.1:0", "--events", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"]
    words = [sys.executable, "-c", MORTAL, "broker", "--store", "memory:", *doors]
    done = subprocess.run(words, env=environment(home), capture_output=True, timeout=30, check=False)
    assert (done.returncode, b"the Gatekeeper was killed" in done.stderr) == (70, True)


def doctor(home: Path, *arguments: str, path: str | None = None) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and of each finding its verdict and words."""
    done = run(environment(home, {} if path is None else {"PATH": path}), "doctor", "--json", *arguments)
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {one["check"]: (one["severity"], one["message"]) for one in findings}


def test_a_machine_with_all_is_well(cluster: Cluster) -> None:
    code, found = doctor(cluster.home, "--broker", cluster.broker.requests)
    assert code == 0
    assert set(found) == {"system", "python", "git", "control groups", "home", "jobs", "keys", "disk", "broker"}
    assert found["broker"][0] == "ok"
    assert "below" in found["control groups"][1] or "subreaper" in found["control groups"][1]


def test_what_is_missing_is_told_with_what_to_do(home: Path, tmp_path: Path) -> None:
    assert doctor(tmp_path / "nowhere")[1]["home"][1].endswith("`airunner up` or `airunner certs init` makes it")
    (home / "certs" / "client.secret").chmod(0o644)
    code, found = doctor(home, "--broker", "tcp://127.0.0.1:1", path="/nonexistent")
    assert code == 78
    assert found["keys"][0] == "problem"
    assert found["keys"][1].endswith(f"run `chmod 600 {home}/certs/client.secret`")
    assert found["git"][0] == "problem"
    assert found["broker"][0] == "note"
    (home / "certs" / "broker.public").unlink()
    assert (
        "broker.public is missing: run `airunner certs init`"
        in doctor(home, "--broker", "tcp://127.0.0.1:1")[1]["keys"][1]
    )


def test_a_broker_says_in_one_line_what_is_wrong_with_its_database(home: Path, store: str, tmp_path: Path) -> None:
    doors = ["--listen", "tcp://127.0.0.1:0", "--events", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"]

    def refused(store: str, home: Path = home, module: str = "airunner") -> tuple[int, list[str]]:
        done = run(environment(home), "broker", *doors, "--store", store, module=module)
        return done.returncode, done.stderr.decode().splitlines()

    code, (line,) = refused("postgresql://me:sesame@127.0.0.1:1/jobs", module="tests.acceptance.collected")
    assert (code, "me:***@127.0.0.1" in line, "sesame" in line) == (69, True, False)
    assert line.endswith("Connection refused; start PostgreSQL, or correct --store")
    with running_broker(home, store) as broker:
        code, (line,) = refused(store)
        assert (code, "a broker already runs in" in line) == (69, True)
        make_home(tmp_path / "other")
        code, (line,) = refused(store, tmp_path / "other")
        assert (code, "belongs to another fleet" in line) == (64, True)
        assert broker.stop() == 0
