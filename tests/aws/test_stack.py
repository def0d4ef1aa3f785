"""The CloudFormation file is applied where an emulator can, and brokers use what it has made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import awsemulators
import pytest

from airunner.broker.store.awsurl import AwsUrl
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Identity
from airunner.broker.store.dynamodb.opening import open_dynamodb
from airunner.broker.store.dynamodb.schema import table_definition
from airunner.certs.home import Home
from airunner.protocol.replies import JobCompleted
from airunner.transport.ports import SYSTEM
from tests.aws.recorder import rights_in
from tests.aws.serving import Emulators
from tests.aws.stacks import Stack, applied
from tests.aws.template import ACCOUNT, FILE, REGION, Template
from tests.conformance.driving import Driver, batch, completion

TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:operators"
pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def stack(aws_emulators: Emulators) -> Iterator[Stack]:
    """The file as an emulator has applied it, which leaves out the table's expiry and recovery."""
    with applied(aws_emulators("ministack"), EventsQueue="true", AlarmTopic=TOPIC) as stack:
        yield stack


def test_an_applied_table_is_the_one_that_brokers_use(stack: Stack) -> None:
    table = stack.aws.client().describe_table(TableName=stack.name)["Table"]
    wanted = table_definition(stack.name)
    assert table["BillingModeSummary"]["BillingMode"] == wanted.pop("BillingMode")
    for index in table["GlobalSecondaryIndexes"]:
        index.pop("IndexStatus", None)
    assert {key: table[key] for key in wanted} == wanted


def test_a_job_lives_in_an_applied_table(stack: Stack) -> None:
    identity = Identity(broker="one", fleet="ours", requests="tcp://a:1", events="tcp://a:2")
    with closing(open_dynamodb(AwsUrl.parse(stack.url), identity, SYSTEM.wall_ms)) as engine:
        driver = Driver(Store(engine))
        driver.submit()
        lease = driver.lease_one()
        assert driver.publish(batch(lease, 0, "hello")) == [(1, None)]
        driver.reply(JobCompleted, completion(lease, 1))


def test_applied_queues_have_what_the_file_gives_them(stack: Stack) -> None:
    sqs = stack.aws.client("sqs")

    def attributes(name: str) -> dict[str, Any]:
        found = sqs.get_queue_attributes(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"], AttributeNames=["All"])
        return dict(found["Attributes"])

    bells, submissions = attributes(f"{stack.name}-bells"), attributes(f"{stack.name}-submissions")
    assert {queue["SqsManagedSseEnabled"] for queue in (bells, submissions)} == {"true"}
    redrive = json.loads(submissions["RedrivePolicy"])
    dead = attributes(f"{stack.name}-submissions-dead")
    assert (redrive["deadLetterTargetArn"], int(redrive["maxReceiveCount"])) == (dead["QueueArn"], 5)
    assert stack.outputs["SubmissionsArn"] == submissions["QueueArn"]


def test_the_applied_policy_is_the_one_that_is_compared_with_what_brokers_call(stack: Stack) -> None:
    iam, arn = stack.aws.client("iam"), stack.outputs["BrokerPolicyArn"]
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    read = Template(Name=stack.name).properties("BrokerPolicy")["PolicyDocument"]
    assert rights_in(document) == rights_in(read)
    roles = {role["RoleName"] for role in iam.list_entities_for_policy(PolicyArn=arn)["PolicyRoles"]}
    assert roles == {stack.outputs["BrokerRoleArn"].rsplit("/", 1)[-1]}


def test_alarms_watch_queues_and_table_of_the_stack(stack: Stack) -> None:
    alarms = stack.aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    watched = {alarm["Dimensions"][0]["Value"] for alarm in alarms if alarm["AlarmActions"] == [TOPIC]}
    assert watched == {stack.name, f"{stack.name}-submissions", f"{stack.name}-submissions-dead"}


ON_FARGATE = {
    "Image": "registry.example.org/airunner:1",
    "FleetKeys": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:fleet-1",
    "Vpc": "vpc-12345678",
    "Subnets": "subnet-12345678,subnet-12345679",
}


def test_brokers_on_fargate_run_as_the_role_with_the_policy_and_have_names(aws_emulators: Emulators) -> None:
    with applied(aws_emulators("ministack"), **ON_FARGATE) as stack:
        ecs = stack.aws.client("ecs")
        services = ecs.describe_services(cluster=stack.name, services=["broker-1", "broker-2"])["services"]
        assert [service["desiredCount"] for service in services] == [1, 1]
        (task,) = {service["taskDefinition"] for service in services}
        described = ecs.describe_task_definition(taskDefinition=task)["taskDefinition"]
        assert described["taskRoleArn"] == stack.outputs["BrokerRoleArn"]
        (container,) = described["containerDefinitions"]
        assert {"name": "AIRUNNER_STORE", "value": stack.outputs["StoreUrl"]} in container["environment"]
        assert stack.outputs["Endpoints"].split() == [f"tcp://broker-{at}.{stack.name}.internal:7070" for at in (1, 2)]


@pytest.mark.parametrize("missing", ["FleetKeys", "Vpc"])
def test_brokers_on_fargate_without_keys_or_a_network_are_refused(aws_emulators: Emulators, missing: str) -> None:
    given = {name: value for name, value in ON_FARGATE.items() if name != missing}
    with (
        pytest.raises(Exception, match=f"Brokers of Image need {missing}"),
        applied(aws_emulators("ministack"), **given),
    ):
        pass


@pytest.fixture
def unused(aws_emulators: Emulators) -> Iterator[Stack]:
    """A stack whose table belongs to no fleet yet."""
    with applied(aws_emulators("ministack")) as stack:
        yield stack


def test_the_command_of_a_task_starts_a_broker_that_has_the_fleets_keys_and_hides_them(
    unused: Stack, tmp_path: Path
) -> None:
    (container,) = Template(Name=unused.name, **ON_FARGATE).properties("Task")["ContainerDefinitions"]
    (script,) = container["Command"]
    listening = script.replace("0.0.0.0:7070", "127.0.0.1:0").replace("0.0.0.0:7071", "127.0.0.1:0 --http 127.0.0.1:0")
    assert listening != script
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "airunner").write_text(f'#!/bin/sh\nexec {sys.executable} -m airunner "$@"\n')
    (programs / "airunner").chmod(0o755)
    environ = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(FILE.parents[2]), **awsemulators.KEYS}
    first, home = tmp_path / "first", tmp_path / "home"
    home.mkdir(mode=0o700)
    for command in ("init", "add fleet --role broker", "export fleet"):
        made = subprocess.run(
            [programs / "airunner", "certs", *command.split()],
            env={**environ, "AIRUNNER_HOME": str(first)},
            check=True,
            capture_output=True,
            text=True,
        )
    given = {"HOME": str(home), "FLEET_KEYS": made.stdout, "AIRUNNER_STORE": unused.url}
    with subprocess.Popen(
        [*container["EntryPoint"], listening], env={**environ, **given}, stderr=subprocess.PIPE, text=True
    ) as broker:
        assert broker.stderr
        said = []
        for line in broker.stderr:
            said.append(line)
            if "ready:" in line:
                break
        assert "ready:" in said[-1], "".join(said)
        environment = Path(f"/proc/{broker.pid}/environ").read_text()
        broker.terminate()
    assert "FLEET_KEYS" not in environment
    assert not (home / "fleet.keys").exists()
    assert Home(home / ".airunner").broker_secret.read_bytes() == Home(first).broker_secret.read_bytes()
