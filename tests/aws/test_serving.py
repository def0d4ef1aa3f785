"""Emulators for tests: of their own, never left behind, and with what was acknowledged after they were killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import awsemulators
import pytest

from tests.aws.serving import LIVE, Account, emulating, require

pytestmark = pytest.mark.timeout(60)  # MiniStack takes seconds to start, and a busy machine


def test_a_table_is_new_and_has_the_indexes_of_the_engine(aws: Account, aws_table: str):
    client = aws.client()
    table = client.describe_table(TableName=aws_table)["Table"]
    assert {index["IndexName"] for index in table["GlobalSecondaryIndexes"]} == {"waiting", "due", "listed"}
    assert client.query(
        TableName=aws_table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "STORE"}},
    )["Items"] == []  # fmt: skip
    other = aws.create()
    assert other != aws_table
    aws.drop(other)


@pytest.mark.skipif(LIVE in os.environ, reason="a real account is named")
@pytest.mark.usefixtures("aws_emulators")
def test_no_test_finds_a_real_account():
    import boto3

    found = boto3.session.Session().get_credentials()
    assert found is not None
    assert (found.access_key, found.method) == ("test", "env")


KILLED = """
import sys
from pathlib import Path
from tests.aws.serving import emulating
with emulating("dynoxide", Path(sys.argv[1])) as emulator:
    print(emulator.root, emulator.port, flush=True)
    sys.stdin.read()
"""


def test_an_emulator_and_its_files_end_with_a_killed_test_run(tmp_path: Path):
    require("dynoxide")
    environ = {**os.environ, "PYTHONPATH": "scripts"}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as run:
        assert run.stdout
        root, port = run.stdout.readline().split()
        run.kill()
        assert not run.stdout.read()  # to its end: the process that removes the files holds it open
    assert not Path(root).exists()
    assert not awsemulators.accepts(int(port))


@pytest.mark.usefixtures("aws_emulators")
def test_a_killed_dynoxide_starts_again_on_its_port_with_what_was_acknowledged(tmp_path: Path):
    with emulating("dynoxide", tmp_path / "log") as emulator:
        table, client, port = emulator.create(), emulator.client(), emulator.port
        client.put_item(TableName=table, Item={"pk": {"S": "kept"}, "sk": {"S": "0"}})
        emulator.kill()
        emulator.start()
        key = {"pk": {"S": "kept"}, "sk": {"S": "0"}}
        assert (emulator.port, client.get_item(TableName=table, Key=key)["Item"]) == (port, key)


def test_an_emulator_that_is_not_installed_is_skipped_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(awsemulators, "DYNOXIDE_PROGRAM", tmp_path / "none")
    monkeypatch.delenv("AIRUNNER_DYNOXIDE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="there is no dynoxide on this machine: run `make aws-emulators`"):
        require("dynoxide")
