"""What `make aws-up` starts: emulators with a table, until `make aws-down`."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import awsemulators
import boto3
import pytest

from airunner.broker.store.awsurl import AwsUrl
from tests.acceptance.running import RunningBroker, make_home
from tests.aws.serving import require
from tests.postgresql.serving import free_port

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(60)]
UP = """
import sys
from pathlib import Path
import awsemulators
awsemulators.PORTS = dict(zip(awsemulators.PORTS, map(int, sys.argv[2:])))
sys.exit(awsemulators.up(Path(sys.argv[1])))
"""
"""`make aws-up`, on other ports."""


def up(folder: Path, ports: tuple[int, int]) -> subprocess.CompletedProcess[str]:
    for name in ("dynoxide", "ministack"):
        require(name)
    command = [sys.executable, "-c", UP, folder, *map(str, ports)]
    environ = {**os.environ, "PYTHONPATH": "scripts:."}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_emulators_run_with_a_table_that_stays_until_they_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in awsemulators.KEYS.items():
        monkeypatch.setenv(name, value)
    ports = (free_port(), free_port())
    try:
        started = up(tmp_path, ports)
        assert started.returncode == 0, started.stderr
        (store,) = re.findall(r"--store '(.+)'", started.stdout)
        url = AwsUrl.parse(store)
        client = boto3.client("dynamodb", region_name=url.region, endpoint_url=f"http://127.0.0.1:{ports[0]}")
        client.put_item(TableName=url.table, Item={"pk": {"S": "kept"}, "sk": {"S": "0"}})
        make_home(tmp_path / "home")
        assert RunningBroker(tmp_path / "home", store, command="orchestrator").stop() == 0, "it finds queues and bus"
        again = up(tmp_path, ports)
        assert again.returncode == 1
        assert re.fullmatch(r"dynoxide is running as process \d+; stop it with `make aws-down`\n", again.stderr)
    finally:
        assert awsemulators.down(tmp_path) == 0
    assert not any(map(awsemulators.accepts, ports))
    try:
        assert up(tmp_path, ports).returncode == 0
        assert "Item" in client.get_item(TableName=url.table, Key={"pk": {"S": "kept"}, "sk": {"S": "0"}})
    finally:
        assert awsemulators.down(tmp_path) == 0


def test_a_port_that_is_taken_is_said_and_nothing_is_left_running(tmp_path: Path):
    with socket.create_server((awsemulators.LOOPBACK, 0)) as taken:
        ports = (free_port(), taken.getsockname()[1])
        refused = up(tmp_path, ports)
        assert (refused.returncode, refused.stderr) == (
            1,
            f"port {ports[1]} of ministack is taken by another process\n",
        )
        assert not awsemulators.accepts(ports[0])
