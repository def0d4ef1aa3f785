"""Which variables of a job are secret, and that no reader of a job sees their values."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from airunner.protocol.errors import FieldError
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import command_summary
from airunner.protocol.redaction import is_secret_name, secret_values
from airunner.protocol.shownspec import hiding, shown_spec

VALUE = "s3cr3t/T0ken"


@pytest.mark.parametrize(
    ("names", "secret"),
    [
        ("MAPS_API_KEY AWS_SECRET_KEY AWS_SECRET_ACCESS_KEY TLS_PRIVATE_KEY GITHUB_TOKEN NPM_TOKENS APP_SECRET", True),
        ("APP_SECRETS DB_PASSWORD DB_PASS GITHUB_PAT GCP_CREDENTIALS AZURE_CONNECTION_STRING SSH_PASSPHRASE", True),
        ("TOKEN password Secret API_KEY apikey pat PGPASSWORD MYSQL_PWD app_token", True),
        ("PRIMARY_KEY SORT_KEY CACHE_KEY KEY PUBLIC_KEY KEYBOARD AWS_ACCESS_KEY_ID MONKEY TOKENIZER TOKEN_URL", False),
        ("BYPASS COMPASS PATH SPAT DB_USER PASSWORD_FILE PWD SECRETARY DATABASE_URL", False),
    ],
)
def test_a_variable_is_secret_by_the_usual_names_of_secrets_and_by_no_other(names: str, *, secret: bool) -> None:
    assert {name: is_secret_name(name) for name in names.split()} == dict.fromkeys(names.split(), secret)


def test_an_operators_pattern_names_further_secrets() -> None:
    assert is_secret_name("SORT_KEY", ("*_key",))


@pytest.mark.parametrize(
    ("environment", "hidden", "shown"),
    [
        ({"PRIMARY_KEY": "default"}, (), ()),
        (
            {"API_KEY": "true", "A_TOKEN": "default", "B_TOKEN": "Enabled", "C_TOKEN": ""},
            (),
            ("API_KEY", "A_TOKEN", "B_TOKEN"),
        ),
        ({"DATABASE_URL": "postgres://app:hunter2@db/x"}, ("hunter2",), ()),
        ({"DSN": "amqp://app:h%40nter2@mq"}, ("h%40nter2", "h@nter2"), ()),
        ({"CACHE_URL": "redis://:hunter2@cache:6379/0"}, ("hunter2",), ()),
        ({"HTTPS_PROXY": "http://proxy:3128", "BADGE_URL": "https://git@host/x"}, (), ()),
        ({"INDEX_URL": "https://ghp_0123456789@pypi/"}, ("ghp_0123456789",), ()),
        ({"HOOK_URL": "https://h/x?token=hunter2&y=1"}, ("hunter2",), ()),
        ({"JDBC_URL": "jdbc:postgresql://h/x?user=a&password=hunter2"}, ("hunter2",), ()),
        ({"DATABASE_URL": "postgres://postgres:postgres@db/x"}, (), ("DATABASE_URL",)),
        (
            {"BUS_CONNECTION_STRING": "Endpoint=sb://x/;SharedAccessKey=hunter2=;Entity=q"},
            ("Endpoint=sb://x/;SharedAccessKey=hunter2=;Entity=q", "hunter2="),
            (),
        ),
        ({"PIN": "1234", "LOGIN": "default", "OUT_TOKEN": VALUE}, ("1234", "default"), ()),
        ({"PIN": "123"}, (), ("PIN",)),
    ],
)
def test_what_is_hidden_and_what_is_too_short_or_too_common_to_be(
    environment: dict[str, str], hidden: tuple[str, ...], shown: tuple[str, ...]
) -> None:
    found = secret_values(environment, named=("PIN", "LOGIN"), opted_out=("OUT_TOKEN",))
    assert (found.hidden, found.shown) == (hidden, shown)


SPEC = JobSpec(
    command="curl",
    args=(
        f"-HBearer {VALUE}",
        f"https://host/?t={quote(VALUE, safe='')}",
        json.dumps({"t": 'say "hush"'}),
        "hunter2",
        "https://u:hunter9@host/",
    ),
    repository="https://u:hunter8@host/x",
    working_directory=f"x/{VALUE}",
    environment={
        "A_TOKEN": VALUE,
        "AUTH": f"Bearer {VALUE}",
        "LOGIN": 'say "hush"',
        "DB_URL": "pg://u:hunter2@db",
        "OUT_TOKEN": "public",
        "MODE": "fast",
    },
    secrets=("LOGIN",),
    no_redact=("OUT_TOKEN",),
    owner=VALUE,
    metadata={"url": f"https://h/{VALUE}", "mode": "public"},
    queue="fast",
)


def test_no_reader_of_a_job_sees_a_secret_of_its_environment_anywhere() -> None:
    shown = shown_spec(SPEC)
    assert shown.args == (
        "-HBearer [REDACTED]",
        "https://host/?t=[REDACTED]",
        '{"t": "[REDACTED]"}',
        "[REDACTED]",
        "https://[REDACTED]@host/",
    )
    assert shown.environment == {
        "A_TOKEN": "[REDACTED]",
        "AUTH": "Bearer [REDACTED]",
        "LOGIN": "[REDACTED]",
        "DB_URL": "pg://[REDACTED]@db",
        "OUT_TOKEN": "public",
        "MODE": "fast",
    }
    assert (shown.owner, shown.working_directory, shown.queue) == ("[REDACTED]", "x/[REDACTED]", "fast")
    assert shown.metadata == {"url": "https://h/[REDACTED]", "mode": "public"}
    assert command_summary(SPEC, hiding(SPEC)) == " ".join(("curl", *shown.args))


@pytest.mark.parametrize("environment", [{f"N{n}_TOKEN": f"{n:06}" for n in range(300)}, {"TOKEN": "123456 " * 2_000}])
def test_of_a_job_with_more_secrets_than_can_be_searched_for_nothing_is_shown(environment: dict[str, str]) -> None:
    shown = shown_spec(JobSpec(command="echo", args=("hello", ""), owner="me", environment=environment))
    assert (shown.args, shown.owner) == (("[REDACTED]", ""), "[REDACTED]")


def test_what_a_job_names_as_secret_cannot_be_shown_too() -> None:
    with pytest.raises(FieldError, match="A is named as a secret"):
        JobSpec(command="true", secrets=("A",), no_redact=("A",))
