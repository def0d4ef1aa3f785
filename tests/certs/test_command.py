"""`airunner certs init` and `airunner token` say what they did, and what they are asked for stands alone on stdout."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from airunner.certs.command import certs_app, token_command
from airunner.certs.home import Home
from airunner.certs.principal import ALL_ROLES, Principal, Role
from airunner.certs.tokenkeys import load_verifying_keys
from airunner.certs.tokenverifier import TokenVerifier
from airunner.protocol.errors import OperatorError

APP = typer.Typer()
APP.add_typer(certs_app, name="certs")
APP.command("token")(token_command)
HEAVY = {"jwt", "cryptography", "nacl", "zmq"}


class Printed(NamedTuple):
    """What came of a command."""

    exit_code: int
    stdout: str
    stderr: str


def run(home: Home, *words: str, **environ: str) -> Printed:
    """The command as it is typed, in the environment of this home; errors come out as they are raised."""
    clean = {"AIRUNNER_HOME": str(home.root), "JWT_SIGNING_KEY": "", "JWT_PUBLIC_KEY": "", **environ}
    result = CliRunner().invoke(APP, list(words), env=clean, catch_exceptions=False)
    return Printed(result.exit_code, result.stdout, result.stderr)


def principal_of(home: Home, result: Printed) -> Principal:
    """Whom the broker of this home takes the bearer of the printed token for."""
    assert result.exit_code == 0
    [token] = result.stdout.splitlines()
    return TokenVerifier(load_verifying_keys({}, home)).verify(token.encode(), time.time())


def test_init_names_each_file_that_was_missing_and_prints_no_secret(home: Home) -> None:
    result = run(home, "certs", "init")
    assert result.exit_code == 0
    assert sorted(result.stdout.splitlines()) == [f"made {path}" for path in sorted(home.certs.iterdir())]
    for path in (home.broker_secret, home.client_secret, home.token_secret):
        assert not any(line in result.stdout + result.stderr for line in path.read_text().splitlines())
    assert run(home, "certs", "init").stdout == f"nothing to make: all 7 files are in {home.certs}\n"
    home.broker_public.unlink()
    assert run(home, "certs", "init").stdout == f"made {home.broker_public}\n"


def test_a_token_alone_stands_on_stdout_and_the_broker_believes_it(broker: Home) -> None:
    before_s = time.time()
    result = run(broker, "token", "--subject", "ada", "--ttl", "1h")
    principal = principal_of(broker, result)
    assert (principal.subject, principal.tenant, principal.roles) == ("ada", "default", ALL_ROLES)
    assert (principal.queues, principal.cache_labels) == (None, frozenset())
    assert int(before_s) + 3_600 <= principal.expires_s <= time.time() + 3_600
    assert result.stderr == ""


@pytest.mark.parametrize(
    "words", [("--role", "submit,read"), ("--role", "submit", "--role", "read"), ("--role", " read , submit")]
)
def test_a_token_carries_the_tenant_queues_and_roles_that_were_asked_for(words: tuple[str, ...], broker: Home) -> None:
    words = ("--tenant", "team", "--queue", "ci", "--queue", "nightly", "--cache", "release", "--cache", "*", *words)
    principal = principal_of(broker, run(broker, "token", "--subject", "ada", *words))
    assert (principal.tenant, principal.roles) == ("team", frozenset({Role.SUBMIT, Role.READ}))
    assert principal.queues == frozenset({"ci", "nightly"})
    assert principal.cache_labels == frozenset({"release", "*"})


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--ttl", "1x"], r"--ttl '1x': expected a number and a unit, as in 90s, 15m, 1h30m or 7d"),
        *((["--role", role], "use one or more of submit,read,work,admin") for role in ("root", "submit,,read", "READ")),
        (["--tenant", "two words"], "--tenant: expected 1 to 128 letters, digits and any of .*, not 'two words'"),
        (["--queue", "two words"], "--queue 'two words': expected 1 to"),
        ([word for number in range(33) for word in ("--queue", f"q{number}")], "at most 32 queues"),
        (["--cache", "Release"], "--cache 'Release': expected 1 to 64 small letters"),
        ([word for number in range(33) for word in ("--cache", f"l{number}")], "at most 32 labels"),
    ],
)
def test_a_token_that_makes_no_sense_is_not_printed(words: list[str], why: str, broker: Home) -> None:
    with pytest.raises(OperatorError, match=why):
        run(broker, "token", "--subject", "ada", *words)


def test_who_is_given_a_token_waits_for_no_cryptography_to_load(home: Home) -> None:
    """Start-up time is what a person waits for at each command; only the modules loaded are compared, not a clock."""
    script = (
        "import sys, pathlib, airunner.certs.command\n"
        "from airunner.certs.home import Home\n"
        "from airunner.certs.tokensource import token_source\n"
        f"token_source({{}}, Home(pathlib.Path({str(home.root)!r})), explicit='a.b.c').token_at(0)\n"
        "print(*sys.modules)"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = subprocess.run([sys.executable, "-c", script], env=environ, check=True, capture_output=True, text=True)
    assert HEAVY.isdisjoint(loaded.stdout.split())
