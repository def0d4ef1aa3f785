"""A client presents the token it was given, or mints fresh ones, or presents none."""

from __future__ import annotations

from pathlib import Path

import pytest

from airunner.certs.home import Home
from airunner.certs.init import init
from airunner.certs.principal import Role
from airunner.certs.tokenkeys import load_verifying_keys
from airunner.certs.tokensource import MINTED_TTL_S, token_source
from airunner.certs.tokenverifier import TokenVerifier
from airunner.protocol.errors import OperatorError
from airunner.protocol.frames import TOKEN_BYTES_MAX

NOW_S = 1_800_000_000.0


def test_the_flag_comes_before_the_variable_and_that_before_the_key(home: Home) -> None:
    assert token_source({}, home).token_at(NOW_S) == b"", "where there is nothing"
    with pytest.raises(OperatorError, match=r"JWT_SIGNING_KEY"):
        token_source({"JWT_SIGNING_KEY": "/nowhere"}, home)
    init(home)
    environ = {"AIRUNNER_TOKEN": " from.the.variable\n"}
    flag = token_source(environ, home, explicit="from.the.flag")
    assert {flag.token_at(NOW_S), flag.token_at(NOW_S + 10**9)} == {b"from.the.flag"}
    assert token_source(environ, home).token_at(NOW_S) == b"from.the.variable"
    assert token_source({"AIRUNNER_TOKEN": ""}, home).token_at(NOW_S).count(b".") == 2


@pytest.mark.parametrize(
    ("options", "variables", "chosen"),
    [
        ({}, {"FILE"}, b"file.of.variable"),
        ({}, {"FILE", "TOKEN"}, b"token.of.variable"),
        ({"file"}, {"TOKEN"}, b"file.of.option"),
        ({"explicit"}, {"FILE"}, b"token.of.option"),
    ],
)
def test_an_option_overrides_the_variables_and_a_token_a_file(
    options: set[str], variables: set[str], chosen: bytes, home: Home, tmp_path: Path
) -> None:
    """The command line reads the variables too, of options that are not given."""
    for name in ("variable", "option"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(f"file.of.{name}")
    set_ = {
        "FILE": ("AIRUNNER_TOKEN_FILE", str(tmp_path / "variable")),
        "TOKEN": ("AIRUNNER_TOKEN", "token.of.variable"),
    }
    environ = dict(set_[name] for name in variables)
    given = {"explicit": "token.of.option", "file": tmp_path / "option"}
    read = {"explicit": environ.get("AIRUNNER_TOKEN"), "file": tmp_path / "variable" if "FILE" in variables else None}
    for words in ({}, read):
        source = token_source(environ, home, **{**words, **{name: given[name] for name in options}})
        assert source.token_at(NOW_S) == chosen


def test_a_minted_token_is_of_the_tenant_that_is_set(broker: Home) -> None:
    token = token_source({"AIRUNNER_TENANT": "blue"}, broker).token_at(NOW_S)
    assert TokenVerifier(load_verifying_keys({}, broker)).verify(token, NOW_S).tenant == "blue"


def test_a_minted_token_is_believed_by_the_broker_of_the_same_home(broker: Home) -> None:
    token = token_source({}, broker, subject="agent:a", roles={Role.WORK}).token_at(NOW_S)
    principal = TokenVerifier(load_verifying_keys({}, broker)).verify(token, NOW_S)
    assert (principal.subject, principal.tenant, principal.roles) == ("agent:a", "default", frozenset({Role.WORK}))
    assert principal.expires_s == NOW_S + MINTED_TTL_S


def test_a_minted_token_serves_until_half_of_its_life_is_over_or_the_clock_is_set_back(broker: Home) -> None:
    source = token_source({}, broker)
    first = source.token_at(NOW_S)
    assert source.token_at(NOW_S + MINTED_TTL_S / 2 - 1) == first
    second = source.token_at(NOW_S + MINTED_TTL_S / 2)
    assert second != first
    assert source.token_at(NOW_S + MINTED_TTL_S / 2 + 1) == second
    token = source.token_at(NOW_S - 86_400)
    TokenVerifier(load_verifying_keys({}, broker)).verify(token, NOW_S - 86_400)


def test_what_the_variable_holds_is_not_called_the_flags(home: Home) -> None:
    """The command line takes the flag from the variable where it is not given."""
    with pytest.raises(OperatorError, match=r"^AIRUNNER_TOKEN holds no token"):
        token_source({"AIRUNNER_TOKEN": "two words"}, home, explicit="two words")


@pytest.mark.parametrize("given", ["", "  ", "two words", "ключ", "a\x00b", "x" * (TOKEN_BYTES_MAX + 1)])
def test_what_cannot_be_a_token_is_refused_before_it_is_sent(given: str, home: Home) -> None:
    with pytest.raises(OperatorError, match=r"^--token (holds no token|is longer)"):
        token_source({}, home, explicit=given)


def renewed(file: Path, token: str, mode: int = 0o600) -> None:
    """As whoever renews it does: whole, in one step."""
    draft = file.with_suffix(".new")
    draft.write_text(token + "\n")
    draft.chmod(mode)
    draft.rename(file)


def test_a_file_is_read_again_whenever_it_has_changed_and_each_reason_why_not_is_told_once(
    home: Home, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    renewed(file, "the.first.one")
    told: list[str] = []
    source = token_source({"AIRUNNER_TOKEN": "of.the.environment"}, home, file=file, report=told.append)

    def presented() -> bytes:
        return {source.token_at(NOW_S) for _ in range(3)}.pop()

    assert presented() == b"the.first.one"
    renewed(file, "the.second.one", 0o644)
    assert presented() == b"the.first.one"
    assert "is open to others (mode 0644)" in told.pop()
    for broken in ("two words", ""):
        renewed(file, broken)
        assert presented() == b"the.first.one"
    assert [("holds no token" in line, "the last token is presented" in line) for line in told] == [(True, True)]
    renewed(file, "the.third.one")
    assert presented() == b"the.third.one"
    renewed(file, "two words")
    assert presented() == b"the.third.one"
    assert len(told) == 2
    file.unlink()
    assert presented() == b"the.third.one"


def test_a_file_that_is_no_token_at_the_start_is_told(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(OperatorError, match="--token-file"):
        token_source({}, home, file=file)
    renewed(file, "a.b.c")
    file.chmod(0o644)
    with pytest.raises(OperatorError, match="chmod 600"):
        token_source({}, home, file=file)
    with pytest.raises(OperatorError, match="not both"):
        token_source({}, home, explicit="a.b.c", file=file)


def test_a_client_keeps_its_token_for_the_next_one_of_the_same_key_and_subject(broker: Home) -> None:
    def token(now_s: float = NOW_S, subject: str = "client") -> bytes:
        return token_source({}, broker, subject=subject, keep=True).token_at(now_s)

    first = token()
    assert broker.client_token.stat().st_mode & 0o777 == 0o600
    assert {token(), token(NOW_S + MINTED_TTL_S / 2 - 1)} == {first}
    assert len({first, token(subject="other"), second := token(NOW_S + MINTED_TTL_S / 2)}) == 3
    assert token(NOW_S + MINTED_TTL_S / 2) == second
    assert token(NOW_S) != second, "the clock was set back"
    broker.token_secret.unlink()
    assert token() == b"", "without a key it has no token"
    broker.token_public.unlink()
    init(broker)
    TokenVerifier(load_verifying_keys({}, broker)).verify(token(), NOW_S)
    for content in (b"a.b.c", b"\xff", b"0 1 a.b.c\n"):
        broker.client_token.write_bytes(content)
        TokenVerifier(load_verifying_keys({}, broker)).verify(token(), NOW_S)
    broker.client_token.unlink()
    broker.client_token.mkdir()
    TokenVerifier(load_verifying_keys({}, broker)).verify(token(), NOW_S)
