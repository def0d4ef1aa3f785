"""Which variables of a job are secret, and that no reader of a job sees their values."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from urllib.parse import quote, quote_plus, urlencode

import pytest
from msgspec.structs import replace

from airunner.protocol.errors import FieldError
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import command_summary
from airunner.protocol.printable import shell_line
from airunner.protocol.redaction import is_secret_name, secret_values
from airunner.protocol.shownspec import hiding, shown_command, shown_spec
from tests.quoting import QUOTED, bash_quoted, for_pages

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
        ({"DB": "postgres://app:p@ss/w0rd-Xy9@h/x"}, ("p@ss/w0rd-Xy9",), ()),
        ({"DB": "postgres://app:p@ss?w#rd-Xy9@h/x"}, ("p@ss?w#rd-Xy9",), ()),
        ({"DB": "jdbc:postgresql://app:pa ss@w0rd-Xy9@h/x"}, ("pa ss@w0rd-Xy9",), ()),
        ({"DB": "pg://u:hunter2@h/x@v1"}, ("hunter2", "hunter2@h/x"), ()),
        ({"MIRRORS": "https://h:80/a me@x https://h/@scope"}, (), ()),
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
    assert shown_command(replace(SPEC, command=f"./{VALUE}.sh")) == "./[REDACTED].sh"
    assert (shown.owner, shown.working_directory, shown.queue) == ("[REDACTED]", "x/[REDACTED]", "fast")
    assert shown.metadata == {"url": "https://h/[REDACTED]", "mode": "public"}
    assert command_summary(SPEC, hiding(SPEC)) == shell_line(("curl", *shown.args))


ODD = "p<a>&ss'w\"o;r d/ä€+%41"
KEY = "-----BEGIN KEY-----\n  MIIEvQ/IBADAN\n  Bgkqhk+iG9w0"


@pytest.mark.parametrize(
    ("secret", "written"),
    [
        ("ab/cd&ef=gh-Xy9", "ab/cd%26ef%3Dgh-Xy9"),
        ("ab/cd&ef=gh-Xy9", "ab%2fcd%26ef%3dgh-Xy9"),
        ("two words-Xy9", "two+words-Xy9"),
        ("two words-Xy9", "two%20words-Xy9"),
        ("1+2 3+4=ten", quote_plus("1+2 3+4=ten")),
        ("p@55%w0rd", "p@55%%w0rd"),
        (ODD, quote(ODD)),
        (ODD, urlencode({"": ODD})[1:]),
        (ODD, bash_quoted(bash_quoted(ODD))),
        (ODD, shlex.quote(ODD)),
        (ODD, '"' + re.sub(r"([\\\"$`])", r"\\\1", ODD) + '"'),
        (ODD, json.dumps(json.dumps(ODD))),
        (ODD, shlex.quote(for_pages(json.dumps(ODD)))),
        (ODD, bash_quoted(json.dumps(ODD, ensure_ascii=False))),
        (ODD, "".join(f"\\u{{{ord(char):x}}}" for char in ODD)),
        (ODD, "".join(f"\\U{ord(char):08X}" for char in ODD)),
        ("a&nosuch;b&#9999999;", json.dumps("a&nosuch;b&#9999999;")),
        (ODD, html.escape(json.dumps(ODD)[1:-1])),
        (ODD, json.dumps(quote(html.escape(ODD)))),
        (KEY, base64.b64encode(KEY.encode()).decode().rstrip("=")[:-1]),
        (ODD, base64.encodebytes(ODD.encode()).decode().rstrip("=\n")[:-1]),
        (ODD, base64.urlsafe_b64encode(ODD.encode()).decode().rstrip("=")[:-1]),
        (ODD, ODD.encode().hex()),
        (ODD, ODD.encode().hex().upper()),
        *((ODD, how(ODD)) for how in QUOTED),
        ("C:\\new\\table", json.dumps("C:\\new\\table")),
        ("C:\\neü\\table", json.dumps("C:\\neü\\table")),
        ("rocket🚀s", json.dumps("rocket🚀s")),
        (KEY, " ".join(KEY.split())),
        (KEY, json.dumps(KEY)),
        (KEY, "$'" + KEY.replace("\n", "\\n") + "'"),
        (json.dumps(KEY), KEY),
        ("x1b\x1b-07\x07-0b\x0b-08\b-0c\f-", r"$'x1b\E-07\a-0b\v-08\b-0c\f-'"),
        ("p%40ss/w0rd", "p@ss/w0rd"),
        ("p%252540ss/w0rd", "p@ss/w0rd"),
        ("'\"' '\"", quote("'\"' '\"")),
    ],
)
def test_however_a_command_line_quotes_a_secret_no_reader_sees_it(secret: str, written: str) -> None:
    spec = JobSpec(command="bash", args=("-c", f"go <{written}> ü"), environment={"A_TOKEN": secret, "B": written})
    for shown in (shown_spec(spec).args[1], hiding(spec)(spec.args[1])):
        assert re.sub(r"[\\\"' $]", "", shown) == "go<[REDACTED]>ü"
    assert re.sub(r"[\\\"' $]", "", shown_spec(spec).environment["B"]) == "[REDACTED]"


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("p@ss/w0rd-Xy9", "see https://u:p@ss/w0rd-Xy9@h/", "see https://[REDACTED]@h/"),
        ("p@ss?w#rd-Xy9", "https://u:p@ss?w#rd-Xy9@h/", "https://[REDACTED]@h/"),
        ("p@ss w0rd-Xy9", "https://u:p@ss w0rd-Xy9@h/", "https://[REDACTED]@h/"),
        ("ab&cd#ef-Xy9", "https://h/?token=ab&cd#ef-Xy9", "https://h/?token=[REDACTED]"),
        ("hunter8", "go pg://u:p@ss/w0rd-Xy9@h/x p@ss/w0rd-Xy9", "go pg://[REDACTED]@h/x [REDACTED]"),
        ("https://u:", "https://u:hunter9@h/", "[REDACTED]@h/"),
        ("u:hunter9@h/team", "https://u:hunter9@h/team/x", "https://[REDACTED]/x"),
    ],
)
def test_a_secret_in_a_url_is_hidden_whole_whatever_of_the_url_is_hidden_too(
    secret: str, text: str, shown: str
) -> None:
    spec = JobSpec(command="true", args=(text,), environment={"A_TOKEN": secret, "B": text}, owner=text)
    assert shown_spec(spec).args == (shown,)
    assert (shown_spec(spec).owner, shown_spec(spec).environment["B"], hiding(spec)(text)) == (shown, shown, shown)


@pytest.mark.parametrize("user", ["", "u:", "me:", "all:"])
def test_of_a_secret_in_basic_authentication_less_than_one_character_is_shown(user: str) -> None:
    header = base64.b64encode(f"{user}{VALUE}\n".encode()).decode()
    spec = JobSpec(command="curl", args=(f"-HBasic {header}",), environment={"A_TOKEN": VALUE})
    before, mark, after = shown_spec(spec).args[0].removeprefix("-HBasic ").partition("[REDACTED]")
    assert mark
    assert len(before) * 6 - len(user) * 8 < 8
    assert len(after.rstrip("=")) <= 2


def test_credentials_of_an_address_and_words_of_a_secret_are_hidden_in_other_arguments() -> None:
    spec = JobSpec(
        command="echo",
        args=("two", "words-Xy9", "hunter8", "hunter9", "https://u:hunter9@h/"),
        repository="https://u:hunter8@host/x",
        environment={"A_TOKEN": "two words-Xy9"},
    )
    assert shown_spec(spec).args == (*["[REDACTED]"] * 4, "https://[REDACTED]@h/")
    assert shown_spec(spec).repository == "https://[REDACTED]@host/x"


@pytest.mark.parametrize("environment", [{f"N{n}_TOKEN": f"{n:06}" for n in range(300)}, {"TOKEN": "123456 " * 2_000}])
def test_of_a_job_with_more_secrets_than_can_be_searched_for_nothing_is_shown(environment: dict[str, str]) -> None:
    shown = shown_spec(JobSpec(command="echo", args=("hello", ""), owner="me", environment=environment))
    assert (shown.args, shown.owner) == (("[REDACTED]", ""), "[REDACTED]")


@pytest.mark.parametrize("text", ["%41" * 9_000, "123456" * 9_000])
def test_a_text_of_too_many_escapes_or_secrets_to_search_is_hidden_whole(text: str) -> None:
    shown = shown_spec(JobSpec(command="echo", args=(text,), owner="me", environment={"TOKEN": "123456"}))
    assert (shown.argv, shown.owner) == (("[REDACTED]", "[REDACTED]"), "me")


def test_what_a_job_names_as_secret_cannot_be_shown_too() -> None:
    with pytest.raises(FieldError, match="A is named as a secret"):
        JobSpec(command="true", secrets=("A",), no_redact=("A",))
