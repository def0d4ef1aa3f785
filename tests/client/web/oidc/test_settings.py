"""Settings of the login by OpenID Connect: what is refused at the start, and where a login may lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.certs.principal import Role
from airunner.client.web.localpath import PATH_CHARS_MAX, local_path
from airunner.client.web.oidc.options import SECRET_VARIABLE, oidc_settings
from airunner.client.web.oidc.settings import is_safe_address, parse_map
from airunner.protocol.errors import OperatorError

GOOD: dict[str, Any] = {
    "oidc_issuer": "https://id.example.org/realms/main",
    "oidc_client_id": "web",
    "oidc_map": ["developers=read,submit"],
}


def test_a_map_gives_a_user_the_roles_of_all_groups() -> None:
    settings = oidc_settings(**{**GOOD, "oidc_map": ["developers=read, submit", "cn=ops,dc=example=admin"]})
    assert settings is not None
    assert settings.roles_of(["developers", "cn=ops,dc=example", "guests"]) == {Role.READ, Role.SUBMIT, Role.ADMIN}
    assert settings.roles_of(["Developers", ""]) == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oidc_issuer": "http://id.example.org"}, "--oidc-issuer http://id.example.org: expected an https:// address"),
        ({"oidc_issuer": "id.example.org"}, "expected an https:// address"),
        ({"oidc_issuer": "https://id.example.org/?realm=1"}, "expected an https:// address"),
        ({"oidc_issuer": "https://user@id.example.org"}, "expected an https:// address"),
        ({"oidc_issuer": "https://id.example.org:port"}, "expected an https:// address"),
        ({"oidc_issuer": "https://id.example.org/\x1b[2J"}, r"\\x1b\[2J: expected"),
        ({"oidc_issuer": None}, "--oidc-client-id: needs --oidc-issuer"),
        ({"oidc_issuer": None, "oidc_client_id": None}, "--oidc-map: needs --oidc-issuer"),
        ({"oidc_client_id": None}, "--oidc-client-id: name this server's client"),
        ({"oidc_map": None}, "--oidc-map: map a group to roles"),
        ({"oidc_map": ["developers"]}, "--oidc-map developers: expected GROUP=ROLES"),
        ({"oidc_map": ["=read"]}, "--oidc-map =read: expected GROUP=ROLES"),
        ({"oidc_map": ["developers="]}, "use one or more of submit,read,work,admin"),
        ({"oidc_map": ["developers=root"]}, "use one or more of submit,read,work,admin"),
        ({"oidc_map": ["a=read", "a=admin"]}, "the group a comes twice"),
        ({"oidc_map": [f"group{number}=read" for number in range(1_001)]}, "at most 1,000"),
        ({"oidc_tenant": "no name"}, "--oidc-tenant 'no name': expected 1 to 128"),
        ({"oidc_scope": ["two scopes"]}, "--oidc-scope 'two scopes': expected one scope"),
        ({"oidc_client_secret_file": Path("/nowhere")}, "the client's secret /nowhere is missing: write the secret"),
    ],
)
def test_settings_with_which_nobody_could_log_in_are_refused_at_the_start(changes: Any, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        oidc_settings(**{**GOOD, **changes})


def test_the_secret_comes_from_a_file_that_nobody_else_reads_or_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret\n", encoding="utf-8")
    file.chmod(0o644)
    with pytest.raises(OperatorError, match="chmod 600"):
        oidc_settings(**GOOD, oidc_client_secret_file=file)
    file.chmod(0o600)
    monkeypatch.setenv(SECRET_VARIABLE, "of the environment")
    assert [
        settings.client_secret
        for settings in (
            oidc_settings(**GOOD, oidc_client_secret_file=file),
            oidc_settings(**GOOD),
            oidc_settings(**GOOD),  # it is in the environment no more, for what this process may start
        )
        if settings
    ] == ["s3cret", "of the environment", ""]
    for content, message in ((b"\n", "1 to 4,096 characters"), ("é".encode(), "a line of ASCII")):
        file.write_bytes(content)
        with pytest.raises(OperatorError, match=message):
            oidc_settings(**GOOD, oidc_client_secret_file=file)


def test_without_an_issuer_there_is_no_such_login() -> None:
    assert oidc_settings() is None


def test_addresses_without_tls_are_of_this_machine_only() -> None:
    assert all(map(is_safe_address, ("https://a", "http://localhost:8", "http://127.0.0.1/x", "http://[::1]:8/")))
    assert not any(
        map(is_safe_address, ("", "http://a", "ftp://a", "http://127.0.0.1.evil.example", "https://", "https:///x"))
    )


@pytest.mark.parametrize(
    "evil",
    """
    //evil.example ///evil.example /\\evil.example \\\\evil.example /\t/evil.example /\n/evil.example https://evil.example
    https:evil.example javascript:alert(1) //evil.example:80/%2f.. /\r\nSet-Cookie:a=b /jobs\\..\\.. jobs @evil.example
    .evil.example :80 ?next=//evil.example /é
    """.replace("\n    ", " ").split(" "),
)
def test_a_login_leads_to_no_other_site(evil: str) -> None:
    assert local_path(evil) == "/"


def test_a_login_leads_to_the_page_that_was_asked_for() -> None:
    for path in ("/", "/jobs?state=FAILED&name=a%20b#log", "/jobs/0123?next=//x", "/a//b", "/" + "a" * 1_999):
        assert local_path(path) == path
    assert local_path("/" + "a" * PATH_CHARS_MAX) == "/"


@given(st.text(st.sampled_from("/\\.:@ \t\r\n\0evil%2F#?"), max_size=12))
def test_whatever_is_asked_for_the_site_stays(text: str) -> None:
    """As browsers read an address: without tabs and newlines, and with slashes for backslashes."""
    read = local_path(text).translate({9: None, 10: None, 13: None}).replace("\\", "/")
    assert urlsplit(urljoin("https://here.example/page", read))[:2] == ("https", "here.example")


def test_names_of_groups_may_have_equals_signs() -> None:
    assert parse_map(["cn=a,dc=b=read"]) == {"cn=a,dc=b": {Role.READ}}
