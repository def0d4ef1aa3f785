"""What is wrong with keys is told, with what to do; what is well is told to be."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from airunner.certs.allowlist import PeerRole
from airunner.certs.checkup import check_keys
from airunner.certs.curve import new_secret, public_of
from airunner.certs.findings import Severity
from airunner.certs.home import Home
from airunner.certs.init import init
from airunner.certs.machines import add
from airunner.certs.principal import Role
from airunner.certs.queuekeys import make_queue_key, public_path, secret_path
from airunner.certs.tokenkeys import load_signing_key, new_signing_pem
from airunner.certs.tokens import TokenSigner

NOW_S = 1_800_000_000.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give folders away")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    init(home)
    make_queue_key(home, "a/b")
    add(home, "build-7", [PeerRole.AGENT], None, None)
    return home


def found(
    home: Home, environ: dict[str, str] | None = None, file: Path | None = None
) -> dict[str, tuple[Severity, str]]:
    return {
        finding.check: (finding.severity, finding.message)
        for finding in check_keys(home, environ or {}, NOW_S, token_file=file)
    }


def minted(home: Home, ttl_s: float, now_s: float = NOW_S) -> str:
    signer = TokenSigner(load_signing_key({}, home))
    return signer.mint(subject="ada", tenant="t", roles=[Role.READ], ttl_s=ttl_s, now_s=now_s)


def test_where_all_is_well_all_is_said_to_be(home: Home) -> None:
    token = minted(home, 7_200)
    told = found(home, {"AIRUNNER_TOKEN": token})
    secrets = [token.split(".")[1], *(path.read_text().strip() for path in home.certs.rglob("*.secret"))]
    assert len(secrets) > 3
    assert not [secret for secret in secrets if secret in str(told)], "no secret is told"
    assert {verdict for verdict, _ in told.values()} == {Severity.GOOD}
    assert set(told) == {
        "home",
        "folder",
        "broker",
        "this machine",
        "allow-list",
        "machine build-7",
        "token keys",
        "token",
        "queue a/b",
    }


def _other_public(path: Path) -> None:
    path.write_bytes(public_of(new_secret()))


@pytest.mark.parametrize(
    ("what", "breaking", "told"),
    [
        ("folder", lambda home: home.certs.chmod(0o755), "run `chmod go-rwx "),
        ("home", lambda home: home.root.chmod(0o770), "run `chmod go-w "),
        ("hooks", lambda home: home.hooks.mkdir() or home.hooks.chmod(0o777), "run `chmod go-w "),
        ("agent's folder", lambda home: home.agent.mkdir() or home.agent.chmod(0o775), "run `chmod go-w "),
        ("broker's folder", lambda home: home.store.parent.mkdir() or home.store.parent.chmod(0o702), "`chmod go-w "),
        ("broker", lambda home: home.broker_secret.chmod(0o644), "run `chmod 600"),
        ("broker", lambda home: home.broker_public.write_bytes(b"short"), "is damaged: a key has 40 characters"),
        ("this machine", lambda home: _other_public(home.client_public), "does not belong to"),
        ("this machine", lambda home: home.client_secret.unlink(), "is missing"),
        ("allow-list", lambda home: home.allowed_clients.write_bytes(b"no key\n"), "line 1: "),
        ("this machine", lambda home: home.allowed_clients.write_bytes(b""), ""),
        ("machine build-7", lambda home: home.allowed_clients.write_bytes(b""), "`airunner certs revoke build-7`"),
        pytest.param("folder", lambda home: os.chown(home.certs, 65_534, -1), "who could change it", marks=needs_root),
        (
            "machine build-7",
            lambda home: _other_public(home.clients / "build-7.public"),
            "`airunner certs revoke build-7`",
        ),
        ("token keys", lambda home: home.token_secret.write_bytes(new_signing_pem()), "does not trust"),
        ("token keys", lambda home: home.token_secret.chmod(0o640), "run `chmod 600"),
        ("queue a/b", lambda home: _other_public(public_path(home, "a/b")), "run `airunner certs queue-key a/b`"),
        ("queue a/b", lambda home: secret_path(home, "a/b").chmod(0o604), "run `chmod 600"),
    ],
)
def test_each_fault_is_told_by_itself(home: Home, what: str, breaking: Callable[[Home], object], told: str) -> None:
    breaking(home)
    verdict, words = found(home)[what]
    mild = home.allowed_clients.read_bytes() == b""
    assert (verdict, told in words, words) == (Severity.FAIR if mild else Severity.BAD, True, words)


def test_a_token_that_has_ended_and_one_of_another_key_are_told(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(minted(home, 60, NOW_S - 3_600))
    file.chmod(0o600)
    assert "expired at" in found(home, file=file)["token"][1]
    file.chmod(0o644)
    assert "run `chmod 600" in found(home, file=file)["token"][1]
    other = Home(tmp_path / "other")
    init(other)
    assert "a key that this broker does not know" in found(home, {"AIRUNNER_TOKEN": minted(other, 60)})["token"][1]


@pytest.mark.parametrize("verified", [True, False])
@pytest.mark.parametrize(
    ("ttl_s", "verdict", "told"),
    [
        (7_200, Severity.GOOD, "ada of tenant t, read; it expires in 2.0 h"),
        (120, Severity.FAIR, "it expires in 120 s"),
        (-60, Severity.BAD, "expired"),
        (None, Severity.BAD, "is not a "),
    ],
)
def test_a_token_is_told_with_when_it_ends_also_without_a_key_to_verify_it(
    home: Home, ttl_s: float | None, verdict: Severity, told: str, *, verified: bool
) -> None:
    given = "gar.ba.ge" if ttl_s is None else minted(home, 14_400, NOW_S - 14_400 + ttl_s)
    if not verified:
        home.token_public.unlink()
        home.token_secret.unlink()
    severity, words = found(home, {"AIRUNNER_TOKEN": given})["token"]
    assert (severity, told in words, words) == (verdict, True, words)
    assert ("only the broker can verify it" in words) is (not verified and severity is not Severity.BAD)


def test_a_machine_that_only_submits_lacks_nothing(home: Home) -> None:
    for path in (
        home.broker_secret,
        home.allowed_clients,
        home.token_public,
        home.token_secret,
        secret_path(home, "a/b"),
    ):
        path.unlink()
    told = found(home)
    assert told["token keys"][0] is Severity.FAIR
    assert told["token"] == (Severity.FAIR, "none is set: set AIRUNNER_TOKEN, or use --token or --token-file")
    assert told["queue a/b"] == (Severity.GOOD, "its public key is here: secrets can be set")
    assert told["broker"] == (Severity.GOOD, "its public key is here")
    assert Severity.BAD not in {verdict for verdict, _ in told.values()}


@pytest.mark.parametrize(
    ("closed", "check", "named"),
    [
        ("certs/queues", "queue a/b", lambda home: secret_path(home, "a/b")),
        ("certs", "broker", lambda home: home.broker_secret),
    ],
)
def test_a_folder_that_may_not_be_entered_is_told_and_the_rest_is_looked_at(
    home: Home, closed: str, check: str, named: Callable[[Home], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home.root / closed
    look = Path.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if folder in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    told = found(home)
    assert told["home"][0] is Severity.GOOD
    assert told[check] == (Severity.BAD, f"{named(home)}: Permission denied")


def test_without_an_installation_that_is_told(tmp_path: Path) -> None:
    assert found(Home(tmp_path / "nowhere"))["folder"][0] is Severity.BAD
