"""The CloudFormation file makes what brokers use: compared with the code."""

from __future__ import annotations

from airunner.broker.aws.outbox import LIFECYCLE
from airunner.broker.aws.ports import WAIT_S
from airunner.broker.aws.services import SOURCE
from airunner.broker.store.awsurl import AwsUrl
from airunner.broker.store.dynamodb.schema import TTL, table_definition
from tests.aws.template import ACCOUNT, REGION, Template

KEPT = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}


def test_the_table_is_the_one_that_brokers_use() -> None:
    table = Template(Name="jobs").properties("Table")
    extras = ("DeletionProtectionEnabled", "PointInTimeRecoverySpecification", "TimeToLiveSpecification")
    protection, recovery, expiry = [table.pop(name) for name in extras]
    assert table == table_definition("jobs")
    assert expiry == {"AttributeName": TTL, "Enabled": True}
    assert (protection, recovery) == ("true", {"PointInTimeRecoveryEnabled": True})


def test_the_table_outlives_its_stack() -> None:
    resource = Template().content["Resources"]["Table"]
    assert {name: resource[name] for name in KEPT} == KEPT


def test_brokers_with_the_url_of_the_output_find_queues_and_bus() -> None:
    template = Template(Name="jobs")
    url = AwsUrl.parse(template.output("StoreUrl"))
    assert (url.table, url.region) == (template.properties("Table")["TableName"], REGION)
    assert url.bells == template.properties("Bells")["QueueName"]
    assert url.submissions == template.properties("Submissions")["QueueName"]
    assert url.bus == template.properties("Bus")["Name"]


def test_a_submission_that_cannot_be_read_goes_to_a_queue_that_keeps_it_for_longer() -> None:
    template = Template()
    queue, dead = template.properties("Submissions"), template.properties("DeadSubmissions")
    assert queue["RedrivePolicy"]["deadLetterTargetArn"].endswith(f":{dead['QueueName']}")
    assert dead["MessageRetentionPeriod"] > queue["MessageRetentionPeriod"]


def test_a_schedule_may_send_to_the_queue_of_submissions_and_do_nothing_else() -> None:
    template = Template()
    role = template.properties("SchedulerRole")
    (statement,) = [statement for policy in role["Policies"] for statement in policy["PolicyDocument"]["Statement"]]
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{template.properties('Submissions')['QueueName']}"
    assert statement == {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": queue}
    assert "ManagedPolicyArns" not in role


def test_names_of_queues_fit_whatever_the_stack_is_called() -> None:
    longest = "n" * 60
    template = Template(Name=longest)
    AwsUrl.parse(template.output("StoreUrl"))
    queues = [name for name, made in template.content["Resources"].items() if made["Type"] == "AWS::SQS::Queue"]
    assert max(len(template.properties(name)["QueueName"]) for name in queues) <= 80


def test_the_sample_rule_matches_events_that_brokers_send() -> None:
    pattern = Template().properties("EndedJobs")["EventPattern"]
    assert pattern["source"] == [SOURCE]
    assert set(pattern["detail-type"]) <= LIFECYCLE


def test_queues_wait_for_messages_as_long_as_brokers_do() -> None:
    template = Template()
    for name in ("Bells", "Submissions"):
        queue = template.properties(name)
        assert queue["ReceiveMessageWaitTimeSeconds"] == WAIT_S
        assert queue["VisibilityTimeout"] > WAIT_S
