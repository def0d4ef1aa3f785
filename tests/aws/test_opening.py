"""What keeps a broker from its store on AWS is one line with AWS's code, and what to do."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airunner.__main__ import run
from airunner.broker.store.awserrors import open_client
from airunner.broker.store.awsurl import AwsUrl
from airunner.broker.store.contract import Identity
from airunner.broker.store.dynamodb.engine import DynamoEngine
from airunner.broker.store.dynamodb.opening import open_table
from airunner.broker.store.dynamodb.schema import STORE, table_definition
from airunner.broker.store.dynamodb.table import TRIES_MAX, Edges, Table
from airunner.protocol.errors import EXIT_UNAVAILABLE, EXIT_USAGE, OperatorError
from airunner.transport.ports import SYSTEM
from tests.aws.refusing import Refusal, refusing
from tests.aws.serving import Account, Emulators

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(120)  # a table of AWS takes long to make
IDENTITY = Identity(broker="one", fleet="ours", requests="tcp://a:1", events="tcp://a:2")


class Hurried(Edges):
    """Edges without pauses."""

    def pause(self, seconds: float) -> None:
        """Go on at once."""


def opened(url: str, identity: Identity = IDENTITY) -> DynamoEngine:
    """Open a store as a broker does, without pauses between tries."""
    parsed = AwsUrl.parse(url)
    client = open_client(parsed, "dynamodb", connections=1)
    return open_table(client, parsed.table, identity, SYSTEM.wall_ms, Hurried(), announces=False)


def refused(url: str, identity: Identity = IDENTITY) -> OperatorError:
    """The error with which a store is not opened: it is one line that names the store."""
    with pytest.raises(OperatorError) as error:
        opened(url, identity).close()
    assert "\n" not in error.value.message
    assert AwsUrl.parse(url).table in error.value.message
    return error.value


class Made:
    """Tables of a test, dropped at its end."""

    def __init__(self, aws: Account) -> None:
        self.aws = aws
        self.names: list[str] = []

    def __call__(self, **changed: Any) -> str:
        """Make a table that differs from the right one, and return the URL of its store."""
        name = self.aws.name_of_table()
        client = self.aws.client()
        client.create_table(**table_definition(name) | changed)
        client.get_waiter("table_exists").wait(TableName=name)
        self.names.append(name)
        return self.aws.store(name)


@pytest.fixture
def made(aws: Account) -> Iterator[Made]:
    made = Made(aws)
    yield made
    for name in made.names:
        aws.drop(name)


def test_a_table_that_does_not_exist_in_the_region_is_named(aws: Account) -> None:
    error = refused(aws.store("nowhere"))
    assert "ResourceNotFoundException" in error.message
    assert error.message.endswith("; create it with deploy/aws, or correct its name or ?region=")
    assert error.exit_code == EXIT_UNAVAILABLE


@pytest.mark.parametrize("index", ["waiting", "due", "listed"])
def test_an_index_that_is_missing_or_has_other_keys_is_named(made: Made, index: str) -> None:
    right = table_definition("any")
    kept = [one for one in right["GlobalSecondaryIndexes"] if one["IndexName"] != index]
    used = {key["AttributeName"] for one in (right, *kept) for key in one["KeySchema"]}
    attributes = [one for one in right["AttributeDefinitions"] if one["AttributeName"] in used]
    without = {"GlobalSecondaryIndexes": kept, "AttributeDefinitions": attributes}
    assert f"has no index {index} with the right keys: make it with" in refused(made(**without)).message
    other = copy.deepcopy(right["GlobalSecondaryIndexes"])
    for one in other:
        if one["IndexName"] == index:
            one["KeySchema"][0]["AttributeName"] = "pk"
            one["KeySchema"][1]["AttributeName"] = "sk"
    otherwise = {"GlobalSecondaryIndexes": other, "AttributeDefinitions": attributes}
    assert f"has no index {index} with the right keys" in refused(made(**otherwise)).message


def test_a_table_with_other_keys_is_no_store(made: Made) -> None:
    definition = {
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    }
    right = table_definition("any")
    attributes = [one for one in right["AttributeDefinitions"] if one["AttributeName"] not in {"pk", "sk"}]
    definition["AttributeDefinitions"] += attributes
    assert "has other keys than pk and sk" in refused(made(**definition)).message


def test_a_key_of_another_type_is_named(made: Made) -> None:
    attributes = copy.deepcopy(table_definition("any")["AttributeDefinitions"])
    (priority,) = [one for one in attributes if one["AttributeName"] == "wp"]
    priority["AttributeType"] = "S"
    assert "has the key wp of another type than B" in refused(made(AttributeDefinitions=attributes)).message


def test_a_store_of_a_newer_version_wants_the_newer_airunner(made: Made) -> None:
    url = made()
    opened(url).close()
    pk, sk = STORE
    made.aws.client().update_item(
        TableName=made.names[0],
        Key={"pk": {"S": pk}, "sk": {"S": sk}},
        UpdateExpression="SET version = :new",
        ExpressionAttributeValues={":new": {"N": "99"}},
    )
    message = refused(url).message
    assert "has version 99 of the schema" in message
    assert message.endswith("install the newer airunner")


def test_a_store_of_another_fleet_is_not_used(made: Made) -> None:
    url = made()
    opened(url).close()
    other = Identity(broker="two", fleet="theirs", requests="tcp://b:1", events="tcp://b:2")
    assert "belongs to another fleet" in refused(url, other).message


def test_an_item_that_is_too_large_is_an_error_with_its_code(made: Made) -> None:
    url = made()
    client = open_client(AwsUrl.parse(url), "dynamodb", connections=1)
    with closing(Hurried()) as edges:
        table = Table(client, made.names[0], edges)
        with pytest.raises(OperatorError, match="ValidationException: Item size") as error:
            table.put({"pk": {"S": "a"}, "sk": {"S": "0"}, "b": {"B": bytes(409_600)}})
    assert "\n" not in error.value.message


CODES = "com.amazonaws.dynamodb.v20120810#"
CORAL = "com.amazon.coral.service#"
THROTTLED = Refusal(400, f"{CODES}ThrottlingException", "Rate of requests exceeds the allowed throughput.")
BROKEN = Refusal(500, f"{CODES}InternalServerError", "The request processing has failed.")


@pytest.mark.usefixtures("aws_emulators")
@pytest.mark.parametrize("refusal", [THROTTLED, BROKEN], ids=["throttled", "broken"])
def test_an_account_that_stays_throttled_or_broken_is_one_line_after_a_bounded_number_of_tries(
    refusal: Refusal,
) -> None:
    with refusing(refusal) as server:
        error = refused(f"aws:jobs?region=eu-central-1&endpoint={server.url}")
    assert f": {refusal.kind.partition('#')[2]}: " in error.message
    assert server.asked == ["DescribeTable"] * TRIES_MAX
    assert error.exit_code == EXIT_UNAVAILABLE


@pytest.mark.usefixtures("aws_emulators")
@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (f"{CORAL}UnrecognizedClientException", "correct the credentials, or the region with ?region="),
        (f"{CORAL}InvalidSignatureException", "correct the credentials, and the machine's clock"),
        (f"{CORAL}ExpiredTokenException", "renew the credentials"),
        (f"{CORAL}AccessDeniedException", "let the broker's role do this, as deploy/aws does"),
    ],
    ids=lambda word: word.partition("#")[2],
)
def test_credentials_that_aws_refuses_are_one_line_at_once(kind: str, remedy: str) -> None:
    with refusing(Refusal(400, kind, "The reason.\nIn two lines.")) as server:
        error = refused(f"aws:jobs?region=eu-central-1&endpoint={server.url}")
    code = kind.partition("#")[2]
    assert error.message.endswith(f"{code}: The reason. In two lines; {remedy}")
    assert server.asked == ["DescribeTable"]


@pytest.fixture
def without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without credentials or a region."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("aws_emulators", "without_credentials")
def test_a_machine_without_credentials_is_told_where_they_are_looked_for() -> None:
    message = refused("aws:jobs?region=eu-central-1").message
    assert "NoCredentialsError: Unable to locate credentials; give the machine a role, or set AWS_PROFILE" in message


@pytest.mark.usefixtures("aws_emulators", "without_credentials")
def test_a_machine_without_a_region_is_told_how_to_name_one() -> None:
    assert "NoRegionError: " in (message := refused("aws:jobs").message)
    assert message.endswith("name the region with ?region=, or AWS_REGION")


@pytest.mark.usefixtures("aws_emulators")
def test_a_region_that_does_not_answer_is_one_line() -> None:
    message = refused("aws:jobs?region=eu-central-1&endpoint=http://127.0.0.1:1").message
    assert "EndpointConnectionError: Could not connect" in message
    assert message.endswith("mend the network, or correct endpoint= or region=")


# --- as an operator sees it ---


def lines_of(command: str, tmp_path: Path) -> tuple[int, list[str]]:
    """The exit code of a broker that does not start, and what it has said."""
    environ = {**os.environ, "AIRUNNER_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    airunner = [sys.executable, "-m", "airunner"]
    subprocess.run([*airunner, "certs", "init"], env=environ, check=True, capture_output=True)
    doors = ["--listen", "tcp://127.0.0.1:0", "--events", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"]
    ended = subprocess.run(
        [*airunner, *command.split(), *doors], env=environ, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stderr.splitlines()


@pytest.mark.usefixtures("aws_emulators")
@pytest.mark.parametrize("command", ["broker", "orchestrator"])
def test_a_broker_that_may_not_use_its_table_ends_with_one_line(command: str, tmp_path: Path) -> None:
    with refusing(Refusal(400, f"{CORAL}AccessDeniedException", "User: x is not authorized")) as server:
        code, said = lines_of(
            f"{command} --store aws:jobs?region=eu-central-1&endpoint={server.url}&sqs=none", tmp_path
        )
    assert code == EXIT_UNAVAILABLE
    _, line = said  # the first says what a broker does without, having no queues
    assert line.startswith("airunner: cannot use the store in the DynamoDB table jobs: AccessDeniedException: User: x ")
    assert line.endswith("; let the broker's role do this, as deploy/aws does")


def test_a_broker_without_its_queue_ends_with_one_line(aws_emulators: Emulators, tmp_path: Path) -> None:
    aws = aws_emulators("ministack")
    table = aws.create()
    code, (line,) = lines_of(f"orchestrator --store {aws.store(table)}", tmp_path)
    aws.drop(table)
    assert code == EXIT_UNAVAILABLE
    assert line.startswith(f"airunner: cannot use the queue {table}-bells: AWS.SimpleQueueService.NonExistentQueue: ")
    assert line.endswith("create it with deploy/aws, or correct its name or ?region=, or write sqs=none in --store")


@pytest.mark.parametrize(
    "command", ["copy aws:jobs sqlite:///x", "copy sqlite:///x aws:jobs", "restore x --store aws:jobs"]
)
def test_a_store_on_dynamodb_is_not_copied_by_airunner(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["store", *command.split()]) == EXIT_USAGE
    assert "is on DynamoDB, whose own backups and point-in-time recovery" in capsys.readouterr().err
