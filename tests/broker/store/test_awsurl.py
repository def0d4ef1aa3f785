from __future__ import annotations

import sys

import pytest

from airunner.broker.store.awserrors import aws_errors, aws_words, code_of, is_transient, open_client, require_boto3
from airunner.broker.store.awsurl import AwsUrl, is_aws
from airunner.protocol.errors import OperatorError

boto3 = pytest.importorskip("boto3", reason="the extra airunner-jobs[aws] is not installed")


def test_a_table_alone_has_queues_of_its_name_and_no_bus() -> None:
    url = AwsUrl.parse("aws:jobs")
    assert (url.table, url.bells, url.submissions, url.bus) == ("jobs", "jobs-bells", "jobs-submissions", None)
    assert url.submitters == {"default"}
    assert {url.endpoint_of(service) for service in ("dynamodb", "sqs", "events")} == {None}


def test_each_service_has_its_endpoint() -> None:
    url = AwsUrl.parse(
        "aws:jobs?region=eu-central-1&endpoint=http://[::1]:8000&sqs=http://localhost:4566&bus=lifecycle"
    )
    assert (url.region, url.bus) == ("eu-central-1", "lifecycle")
    assert url.endpoint_of("dynamodb") == url.endpoint_of("events") == "http://[::1]:8000"
    assert url.endpoint_of("sqs") == "http://localhost:4566"


def test_a_broker_may_do_without_queues() -> None:
    url = AwsUrl.parse("aws:jobs.of.mine?sqs=none")
    assert (url.bells, url.submissions, url.sqs) == ("", "", None)
    assert AwsUrl.parse("aws:jobs?submissions=none").bells == "jobs-bells"


def test_queues_and_submitters_may_be_named() -> None:
    url = AwsUrl.parse("aws:jobs?bells=a&submissions=b&submitters=one,two")
    assert (url.bells, url.submissions, url.submitters) == ("a", "b", {"one", "two"})


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("aws:", "names no table"),
        ("aws:no", "3 to 255"),
        ("aws:jobs/x", "names no table"),
        ("aws:jobs?regio=x", "no parameter 'regio'"),
        ("aws:jobs?region=a&region=b", "region twice"),
        ("aws:jobs?region=Frankfurt", "a region such as"),
        ("aws:jobs?endpoint=localhost:8000", "endpoint=http://HOST:PORT"),
        ("aws:jobs?sqs=http://key:secret@host", "without credentials"),
        ("aws:jobs?events=http://host:port", "events=http://HOST:PORT"),
        ("aws:jobs.of.mine", "bells=NAME"),
        ("aws:jobs?bells=none.of.it", "bells=NAME"),
        ("aws:jobs?bus=a b", "ARN of an event bus"),
        ("aws:jobs?submitters=a,", "not a tenant's name"),
        (f"aws:jobs?submitters={','.join(f't{at}' for at in range(65))}", "64 at most"),
    ],
)
def test_a_url_that_is_wrong_is_refused_in_one_line(url: str, words: str) -> None:
    assert is_aws(url)
    with pytest.raises(OperatorError) as refused:
        AwsUrl.parse(url)
    assert words in refused.value.message
    assert "\n" not in refused.value.message
    assert "secret" not in refused.value.message


def test_without_boto3_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(OperatorError, match=r"pip install 'airunner-jobs\[aws\]'"):
        require_boto3()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without any setting of AWS."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")


@pytest.mark.usefixtures("bare")
def test_a_region_that_is_missing_or_wrong_is_named() -> None:
    with pytest.raises(OperatorError, match=r"NoRegionError: .*; name the region with \?region=, or AWS_REGION"):
        open_client(AwsUrl.parse("aws:jobs"), "dynamodb", connections=1)


@pytest.mark.usefixtures("bare")
def test_credentials_that_are_missing_are_asked_for() -> None:
    client = open_client(AwsUrl.parse("aws:jobs?region=eu-central-1"), "sqs", connections=1)
    with pytest.raises(Exception, match="credentials") as raised:
        client.list_queues()
    assert isinstance(raised.value, aws_errors())
    assert not is_transient(raised.value)
    assert aws_words(raised.value).startswith("NoCredentialsError: Unable to locate credentials; give the machine")


def test_a_server_that_is_not_reached_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    url = AwsUrl.parse("aws:jobs?region=eu-central-1&endpoint=http://127.0.0.1:1")
    with pytest.raises(Exception, match="connect") as raised:
        open_client(url, "sqs", connections=1).list_queues()
    assert is_transient(raised.value)
    assert code_of(raised.value) == "EndpointConnectionError"
    assert "; mend the network" in aws_words(raised.value)


@pytest.mark.parametrize(
    ("code", "status", "transient"),
    [("ThrottlingException", 400, True), ("InternalError", 500, True), ("AccessDenied", 403, False)],
)
def test_a_code_of_a_service_says_whether_to_try_again(code: str, status: int, *, transient: bool) -> None:
    errors = pytest.importorskip("botocore.exceptions")
    answer = {
        "Error": {"Code": code, "Message": "a\nlong " + "x" * 400},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    error = errors.ClientError(answer, "SendMessage")
    assert is_transient(error) is transient
    words = aws_words(error)
    assert words.startswith(f"{code}: a long xxx")
    assert "\n" not in words
    assert len(words) < 400
