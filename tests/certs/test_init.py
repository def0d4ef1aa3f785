"""`airunner certs init` makes every key once, whatever was there, whoever else does the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest

from airunner.certs import curve, tokenkeys
from airunner.certs.allowlist import AllowList, parse
from airunner.certs.home import Home
from airunner.certs.init import FIRST_CLIENT, init
from airunner.certs.secretfile import create, make_folder, replace
from airunner.certs.tokens import TokenSigner
from airunner.certs.tokenverifier import TokenVerifier
from airunner.protocol.errors import OperatorError

PAIRS = [
    ("broker.secret", "broker.public"),
    ("client.secret", "client.public"),
    ("token.secret.pem", "token.public.pem"),
]
NAMES = sorted(["allowed-clients", *chain(*PAIRS)])
ROUNDS = 8


def contents(home: Home) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(home.certs.iterdir())}


def check_usable(home: Home) -> None:
    """What was made works together."""
    curve.load_broker_pair(home)
    allow = AllowList(home.allowed_clients, pytest.fail)
    assert allow.entry_for(curve.load_client_pair(home).public) == FIRST_CLIENT
    token = TokenSigner(tokenkeys.load_signing_key({}, home)).mint(subject="ada", ttl_s=60, now_s=0)
    assert TokenVerifier(tokenkeys.load_verifying_keys({}, home)).verify(token.encode(), 0).subject == "ada"


def test_all_keys_are_made_and_work_together(home: Home) -> None:
    report = init(home)
    assert sorted(path.name for path in report.made) == NAMES == list(contents(home))
    assert report.kept == ()
    check_usable(home)


@pytest.mark.parametrize("missing", [None, "broker.public", "client.public", "token.public.pem", "allowed-clients"])
def test_a_second_run_makes_what_a_cut_off_run_did_not_reach_and_changes_nothing_else(
    missing: str | None, broker: Home
) -> None:
    before = contents(broker)
    if missing:
        (broker.certs / missing).unlink()
    stamps = {path.name: path.stat() for path in broker.certs.iterdir()}
    report = init(broker)
    assert [path.name for path in report.made] == ([missing] if missing else [])
    assert sorted(path.name for path in report.kept) == sorted(stamps)
    assert contents(broker) == before
    assert stamps.items() <= {path.name: path.stat() for path in broker.certs.iterdir()}.items()
    check_usable(broker)


def test_a_new_client_pair_joins_the_list_that_is_there_and_one_that_was_taken_off_stays_off(broker: Home) -> None:
    before = broker.allowed_clients.read_bytes()
    broker.client_secret.unlink()
    broker.client_public.unlink()
    init(broker)
    assert broker.allowed_clients.read_bytes().startswith(before)
    check_usable(broker)
    replace(broker.allowed_clients, b"# revoked\n")
    assert init(broker).made == ()
    assert parse(broker.allowed_clients.read_bytes()) == ({}, [])


@pytest.mark.parametrize(("secret", "public"), PAIRS)
@pytest.mark.parametrize("fault", ["no secret", "another pair's", "damaged secret", "damaged public"])
def test_what_is_no_pair_is_an_error_that_says_what_to_do_and_is_not_replaced(
    fault: str, secret: str, public: str, broker: Home, tmp_path: Path
) -> None:
    match fault:
        case "no secret":
            (broker.certs / secret).unlink()
            told = rf"{public} exists and .*{secret} does not: put"
        case "another pair's":
            other = Home(tmp_path / "other")
            init(other)
            replace(broker.certs / public, (other.certs / public).read_bytes())
            told = rf"{public} does not belong to .*{secret}: move .*{public} away and run"
        case _:
            told = secret if fault == "damaged secret" else public
            replace(broker.certs / told, b"damaged")
    before = contents(broker)
    with pytest.raises(OperatorError, match=told):
        init(broker)
    assert contents(broker) == before


def test_what_is_half_written_when_the_power_goes_does_not_count(home: Home) -> None:
    make_folder(home.certs)
    create(home.certs / ".broker.secret.0123456789abcdef", b"half a k")
    assert len(init(home).made) == len(NAMES)
    check_usable(home)


def test_two_runs_at_once_make_one_set_of_keys(tmp_path: Path) -> None:
    """The lock is of a folder that each has opened for itself, so that threads stand for processes."""
    with ThreadPoolExecutor(2) as racers:
        for number in range(ROUNDS):
            home = Home(tmp_path / str(number))
            made = [path.name for report in racers.map(init, (home, home)) for path in report.made]
            assert sorted(made) == NAMES == list(contents(home))
            check_usable(home)
