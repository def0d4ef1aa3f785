"""The brokers of a fleet have one key pair, which the first lists and carries to the others in one file."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airunner.certs.allowlist import Entry, PeerRole, parse
from airunner.certs.curve import load_broker_pair, load_client_pair, raw_key
from airunner.certs.home import Home
from airunner.certs.machines import machines
from airunner.certs.tokenkeys import load_verifying_keys
from airunner.protocol.errors import OperatorError
from tests.certs.test_command import run


@pytest.fixture
def carried(broker: Home, tmp_path: Path) -> Path:
    """A file with what a further broker needs."""
    file = tmp_path / "fleet.keys"
    told = run(broker, "certs", "add", "fleet", "--role", "broker")
    assert "airunner certs export fleet" in told.stderr
    run(broker, "certs", "export", "fleet", "--output", str(file))
    return file


@pytest.mark.usefixtures("open_umask")
def test_a_further_broker_has_the_fleets_key_its_allow_list_and_verifies_its_tokens(
    broker: Home,
    elsewhere: Home,
    carried: Path,
) -> None:
    assert "this machine is now fleet" in run(elsewhere, "certs", "import", str(carried)).stdout
    assert load_broker_pair(elsewhere) == load_broker_pair(broker)
    assert elsewhere.allowed_clients.read_bytes() == broker.allowed_clients.read_bytes()
    assert load_verifying_keys({}, elsewhere) == load_verifying_keys({}, broker)
    assert sorted(path.name for path in elsewhere.certs.iterdir()) == [
        "allowed-clients",
        "broker.public",
        "broker.secret",
        "token.public.pem",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (carried, *elsewhere.certs.iterdir())} == {0o600}
    entry = parse(elsewhere.allowed_clients.read_bytes())[0][raw_key(load_broker_pair(broker).public)]
    assert entry == Entry("fleet", frozenset({PeerRole.BROKER}))
    assert run(elsewhere, "certs", "doctor").exit_code == 0
    with pytest.raises(OperatorError, match=r"a further broker's of a fleet: use one with the keys of an agent"):
        load_client_pair(elsewhere)


def test_a_changed_allow_list_is_carried_again_with_force(
    broker: Home,
    elsewhere: Home,
    carried: Path,
) -> None:
    run(elsewhere, "certs", "import", str(carried))
    assert run(elsewhere, "certs", "import", str(carried)).exit_code == 0, "nothing differs"
    run(broker, "certs", "add", "build-7")
    carried.unlink()
    run(broker, "certs", "export", "fleet", "--output", str(carried))
    with pytest.raises(OperatorError, match=r"allowed-clients differs from what .* holds; --force replaces it"):
        run(elsewhere, "certs", "import", str(carried))
    run(elsewhere, "certs", "import", "--force", str(carried))
    assert [machine.name for machine in machines(elsewhere)] == ["build-7", "fleet", "local"]


def test_a_fleets_key_is_listed_once_and_revoking_it_removes_no_key(broker: Home) -> None:
    run(broker, "certs", "add", "fleet", "--role", "broker")
    with pytest.raises(OperatorError, match="under another name"):
        run(broker, "certs", "add", "again", "--role", "broker")
    run(broker, "certs", "revoke", "fleet")
    assert load_broker_pair(broker)
    with pytest.raises(OperatorError, match="not here"):
        run(broker, "certs", "export", "fleet")


@pytest.mark.parametrize("words", [("--role", "client"), ("--tenant", "t"), ("--queue", "q")])
def test_a_broker_is_nothing_else(broker: Home, words: tuple[str, str]) -> None:
    before = broker.allowed_clients.read_bytes()
    with pytest.raises(OperatorError, match="a broker has no other role, and no --tenant or --queue"):
        run(broker, "certs", "add", "fleet", "--role", "broker", *words)
    assert broker.allowed_clients.read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda one: one | {"broker_secret": one["broker_public"]}, "do not match"),
        (lambda one: one | {"broker_public": "short"}, "40 characters"),
        (lambda one: one | {"allowed_clients": ""}, "do not match"),
        (lambda one: one | {"allowed_clients": one["allowed_clients"].replace(" broker", " agent")}, "do not match"),
        (lambda one: one | {"token_public": "x"}, "no PEM public key"),
        (lambda one: one | {"format": "airunner-machine-1"}, "was not made by"),
        (lambda one: {"format": one["format"]}, "was not made by"),
    ],
)
def test_a_file_that_is_damaged_changes_nothing(
    elsewhere: Home,
    carried: Path,
    wrong: Callable[[dict[str, Any]], dict[str, Any]],
    why: str,
) -> None:
    carried.write_text(json.dumps(wrong(json.loads(carried.read_text()))))
    with pytest.raises(OperatorError, match=why) as refused:
        run(elsewhere, "certs", "import", str(carried))
    assert "\n" not in refused.value.message
    assert not elsewhere.root.exists()
