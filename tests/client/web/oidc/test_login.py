"""A login by OpenID Connect, at a real issuer that lies as it is bid."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from starlette.responses import JSONResponse, RedirectResponse, Response

from airunner.certs.principal import Role
from airunner.client.web.oidc.issuer import ANSWER_BYTES_MAX, KEPT_S, ROTATION_S, IssuerAway
from airunner.protocol.errors import BadRequest, Forbidden
from tests.client.web.oidc.conftest import Desk
from tests.client.web.oidc.localissuer import CLIENT, SECRET, LocalIssuer, new_key

Desks = Callable[..., Desk]


async def test_a_user_gets_a_token_with_the_roles_of_all_groups_until_the_id_token_ends(
    desk: Desks, issuer: LocalIssuer
) -> None:
    issuer.user["groups"] = ["developers", "cn=ops,dc=example", "unmapped"]
    at = desk(tenant="blue")
    token, next_path = await at.login("/jobs?state=FAILED")
    principal = at.verifier.verify(token.encode(), at.now_s)
    assert (principal.subject, principal.tenant, next_path) == ("amelie", "blue", "/jobs?state=FAILED")
    assert principal.roles == {Role.READ, Role.SUBMIT, Role.ADMIN}
    assert at.now_s + 3_590 <= principal.expires_s <= at.now_s + 3_600 + 20
    assert not at.reports


async def test_a_session_lasts_eight_hours_at_most(desk: Desks, issuer: LocalIssuer) -> None:
    at = desk()
    issuer.claims = {"exp": 10**30}
    token, _ = await at.login()
    assert at.now_s + 28_799 <= at.verifier.verify(token.encode(), at.now_s).expires_s <= at.now_s + 28_800


async def test_a_user_without_a_mapped_group_has_no_access(desk: Desks, issuer: LocalIssuer) -> None:
    for groups in ([], ["Developers"], None, "dev", 7, [["developers"]], {"developers": True}):
        issuer.claims = {"groups": groups}
        with pytest.raises(Forbidden, match="none of this user's groups has access here"):
            await desk().login()


async def test_groups_and_subject_come_from_the_claims_that_the_operator_names(
    desk: Desks, issuer: LocalIssuer
) -> None:
    issuer.claims = {"groups": None, "https://example.org/teams": "operators", "email": "a@example.org"}
    at = desk(groups_claim="https://example.org/teams", subject_claim="email")
    with pytest.raises(Forbidden, match="has not verified this e-mail address"):
        await at.login()
    issuer.claims["email_verified"] = True
    principal = at.verifier.verify((await at.login())[0].encode(), at.now_s)
    assert (principal.subject, principal.roles) == ("a@example.org", {Role.ADMIN})


LIES: dict[str, dict[str, Any]] = {
    "audience": {"aud": "another-client"},
    "audiences": {"aud": ["another-client", "third"]},
    "no audience": {"aud": None},
    "audience of two without azp": {"aud": [CLIENT, "another-client"]},
    "audience of two for the other": {"aud": [CLIENT, "another-client"], "azp": "another-client"},
    "azp": {"azp": "another-client"},
    "issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "nonce": {"nonce": "of another attempt"},
    "no nonce": {"nonce": None},
    "expired": {"exp": int(time.time()) - 1},
    "no expiry": {"exp": None},
    "endless": {"exp": float("nan")},
    "expiry in words": {"exp": "tomorrow"},
    "issued tomorrow": {"iat": int(time.time()) + 86_400},
    "no instant of issue": {"iat": None},
    "not yet valid": {"nbf": int(time.time()) + 86_400},
    "no subject": {"sub": None},
    "subject of two lines": {"sub": "amelie\nadmin"},
    "long subject": {"sub": "a" * 129},
    "subject that is no text": {"sub": 7},
}


@pytest.mark.parametrize("claims", LIES.values(), ids=LIES.keys())
async def test_an_id_token_that_is_not_for_this_login_is_refused(
    desk: Desks, issuer: LocalIssuer, claims: dict[str, Any]
) -> None:
    issuer.claims = claims
    with pytest.raises(Forbidden, match="the ID token of the issuer is refused"):
        await desk().login()


async def test_clocks_may_differ_by_a_minute(desk: Desks, issuer: LocalIssuer) -> None:
    issuer.claims = {"iat": int(time.time()) + 50, "nbf": int(time.time()) + 50}
    await desk().login()


async def test_two_audiences_are_fine_when_the_token_was_made_for_us(desk: Desks, issuer: LocalIssuer) -> None:
    issuer.claims = {"aud": [CLIENT, "another-client"], "azp": CLIENT}
    await desk().login()


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("RS256", RSAKey.generate_key(2_048, {"kid": "rsa"})),
        ("PS256", RSAKey.generate_key(2_048, {"kid": "rsa"})),
        ("ES384", ECKey.generate_key("P-384", {"kid": "ec"})),
        ("Ed25519", OKPKey.generate_key("Ed25519", {"kid": "okp"})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_issuers_sign_with_any_good_algorithm(desk: Desks, issuer: LocalIssuer, algorithm: str, key: Any) -> None:
    issuer.algorithm, issuer.key = algorithm, key
    issuer.published = [new_key("another"), key]
    await desk().login()


async def test_a_signature_that_proves_nothing_is_refused(desk: Desks, issuer: LocalIssuer) -> None:
    honest = issuer.key
    shared = OctKey.import_key(b"shared with the issuer, or read from its public key", {"kid": honest.kid})
    with pytest.warns(SecurityWarning):
        weak = RSAKey.generate_key(1_024, {"kid": "weak"})
    for algorithm, key, published in (
        ("HS256", shared, [honest]),
        ("HS256", shared, [shared]),  # a key of this kind is not used, even when it is published
        ("ES256", new_key(str(honest.kid)), [honest]),  # of the right name, but another one
        ("RS256", RSAKey.generate_key(2_048, {"kid": honest.kid}), [honest]),  # of another kind than the published one
        ("RS256", weak, [weak]),
        ("ES256", new_key(""), [honest, new_key("second")]),  # without a name, where there are two
    ):
        issuer.algorithm, issuer.key, issuer.published = algorithm, key, published
        with pytest.raises(Forbidden, match="the ID token of the issuer is refused"):
            await desk().login()


@pytest.mark.parametrize(
    "header", [b'{"alg":"none"}', b'{"alg":"ES256","crit":["b64"],"b64":false}', b"{", b"[]", b"\xff"]
)
async def test_a_token_of_another_form_is_refused(desk: Desks, issuer: LocalIssuer, header: bytes) -> None:
    from base64 import urlsafe_b64encode

    _, claims, signature = issuer.id_token("n").split(".")
    head = urlsafe_b64encode(header).rstrip(b"=").decode()
    for token in (f"{head}.{claims}.{signature}", f"{head}.{claims}.", head, "", ".." * 3, "\u00e9.a.b"):
        issuer.token_answer = JSONResponse({"id_token": token})
        with pytest.raises((Forbidden, IssuerAway), match=r"refused|gave no ID token"):
            await desk().login()


async def test_new_keys_are_fetched_when_one_is_unknown_and_old_ones_are_trusted_no_more(
    desk: Desks, issuer: LocalIssuer
) -> None:
    at = desk()
    await at.login()
    await at.login()
    assert issuer.asked["keys"] == 1  # they are kept
    withdrawn = issuer.key
    issuer.rotate("second")
    await at.login()
    assert issuer.asked["keys"] == 2
    issuer.key = withdrawn  # somebody has stolen it
    at.steady_s += ROTATION_S
    with pytest.raises(Forbidden, match="signed with a key that is unknown"):
        await at.login()
    assert issuer.asked["keys"] == 3


async def test_a_flood_of_unknown_keys_is_no_flood_of_requests(desk: Desks, issuer: LocalIssuer) -> None:
    at = desk()
    await at.login()
    issuer.key = new_key("never published")
    for _ in range(5):
        with pytest.raises(Forbidden, match="signed with a key that is unknown"):
            await at.login()
    assert issuer.asked["keys"] == 2  # at first, and once for the key that is unknown
    issuer.rotate("published")
    with pytest.raises(Forbidden, match="signed with a key that is unknown"):
        await at.login()
    at.steady_s += ROTATION_S
    await at.login()
    assert issuer.asked["keys"] == 3


async def test_a_key_that_was_withdrawn_without_another_is_trusted_for_ten_minutes(
    desk: Desks, issuer: LocalIssuer
) -> None:
    at = desk()
    await at.login()
    issuer.published = [new_key("second")]
    at.steady_s += KEPT_S - 1
    await at.login()
    at.steady_s += 1
    with pytest.raises(Forbidden, match="signed with a key that is unknown"):
        await at.login()
    assert issuer.asked["discovery"] == 2


async def test_keys_that_cannot_be_read_are_passed_over(desk: Desks, issuer: LocalIssuer) -> None:
    good = issuer.key.as_dict(private=False)
    strange = [
        None,
        {},
        {"kty": "AKP", "kid": issuer.key.kid},
        {"kty": "EC", "crv": "P-999", "x": "a", "y": "b", "kid": issuer.key.kid},
        {"kty": "RSA", "kid": issuer.key.kid},
        {**good, "use": "enc"},
        {**good, "x": "!"},
        {"kty": ["EC"]},
    ]
    issuer.keys_answer = JSONResponse({"keys": [*strange, good]})
    await desk().login()
    issuer.keys_answer = JSONResponse({"keys": strange})
    with pytest.raises(Forbidden, match="signed with a key that is unknown"):
        await desk().login()
    for answer in ({"keys": "none"}, {}, []):
        issuer.keys_answer = JSONResponse(answer)
        with pytest.raises(IssuerAway, match="its keys are no JWKS"):
            await desk().login()


async def test_a_login_ends_in_the_browser_in_which_it_began(desk: Desks) -> None:
    at = desk()
    answer, sealed = await at.answered()
    _, other = await at.answered()
    for cookie, match in (
        (other, "belongs to another login"),  # login CSRF: the answer to an attacker's attempt
        ("", "did not begin in this browser"),
        (sealed[:-2] + ("AA" if sealed[-2:] != "AA" else "BB"), "cannot be read"),
        ("x.y.z", "cannot be read"),
    ):
        with pytest.raises(BadRequest, match=match):
            await at.oidc.finish(answer, cookie)
    for missing in ("state", "code", "iss"):
        with pytest.raises(BadRequest):
            await at.oidc.finish({name: value for name, value in answer.items() if name != missing}, sealed)
    with pytest.raises(BadRequest, match="answer of another issuer"):
        await at.oidc.finish({**answer, "iss": "https://evil.example"}, sealed)
    at.now_s += 600
    with pytest.raises(BadRequest, match="more than 10 minutes"):
        await at.oidc.finish(answer, sealed)
    at.now_s -= 600
    await at.oidc.finish(answer, sealed)  # nothing of that has used it up


async def test_a_code_of_another_attempt_or_used_before_is_refused_by_the_issuer(desk: Desks) -> None:
    at = desk()
    answer, sealed = await at.answered("//evil.example")
    stolen, _ = await at.answered()
    with pytest.raises(Forbidden, match=r"refuses this login: invalid_grant"):  # PKCE
        await at.oidc.finish({**answer, "code": stolen["code"]}, sealed)
    assert (await at.oidc.finish(answer, sealed))[1] == "/"
    with pytest.raises(Forbidden, match="invalid_grant"):
        await at.oidc.finish(answer, sealed)
    assert not at.reports


async def test_what_the_issuer_says_instead_of_a_code_is_shown_as_a_code_only(desk: Desks) -> None:
    at = desk()
    answer, sealed = await at.answered()
    del answer["code"]
    with pytest.raises(Forbidden, match="refuses this login: access_denied"):
        await at.oidc.finish({**answer, "error": "access_denied", "error_description": "<b>call 555</b>"}, sealed)
    with pytest.raises(Forbidden, match="an error without a name") as refused:
        await at.oidc.finish({**answer, "error": "<b>call 555</b>"}, sealed)
    assert "555" not in refused.value.message


@pytest.mark.parametrize("methods", [["client_secret_basic"], ["client_secret_post"], None])
async def test_the_clients_secret_goes_as_the_issuer_wants_it(
    desk: Desks, issuer: LocalIssuer, methods: list[str] | None
) -> None:
    issuer.secret = SECRET
    if methods is not None:
        issuer.discovery = {"token_endpoint_auth_methods_supported": methods}
    await desk(client_secret=SECRET).login()
    at = desk(client_secret="wrong")
    with pytest.raises(Forbidden, match="invalid_client"):
        await at.login()
    assert "invalid_client (401)" in at.reports[0]  # the operator's to mend
    assert "wrong" not in at.reports[0]


AWAY: dict[str, dict[str, Any]] = {
    "calls itself": {"issuer": "https://evil.example"},
    "no description": {"token_endpoint": None},
    "no description ": {"jwks_uri": ""},
    "without TLS": {"token_endpoint": "http://issuer.example/token"},
    "without TLS ": {"jwks_uri": "http://issuer.example/keys"},
    "without TLS  ": {"authorization_endpoint": "javascript:alert(1)"},
    "without TLS   ": {"authorization_endpoint": "http://127.0.0.1@evil.example/"},
}


@pytest.mark.parametrize(("problem", "discovery"), AWAY.items())
async def test_a_description_that_is_not_the_issuers_own_is_refused(
    desk: Desks, issuer: LocalIssuer, problem: str, discovery: dict[str, Any]
) -> None:
    issuer.discovery = discovery
    at = desk()
    with pytest.raises(IssuerAway, match=problem.strip()):
        await at.oidc.begin("/")
    assert len(at.reports) == 1


async def test_an_issuer_that_answers_badly_is_away(desk: Desks, issuer: LocalIssuer) -> None:
    for token_answer, match in (
        (Response("x" * (ANSWER_BYTES_MAX + 1)), "answers with more than"),
        (Response(status_code=500), "answers with 500"),
        (Response("<html>"), "gave no ID token"),
        (JSONResponse({"access_token": "-"}), "gave no ID token"),
    ):
        issuer.token_answer = token_answer
        with pytest.raises(IssuerAway, match=match):
            await desk().login()
    issuer.token_answer = RedirectResponse(f"{issuer.url}/token", 307)
    with pytest.raises(Forbidden, match="an error without a name"):  # a redirect is not followed
        await desk().login()
    issuer.token_answer, issuer.keys_answer = None, Response(status_code=404)
    with pytest.raises(IssuerAway, match="its keys are answered with 404"):
        await desk().login()
    with pytest.raises(IssuerAway, match="does not answer"):
        await desk(issuer="http://127.0.0.1:1").login()
    with pytest.raises(IssuerAway, match="is the address right"):
        await desk(issuer=f"{issuer.url}/realms/none").login()


async def test_logging_out_leads_to_the_issuer_if_it_offers_that(desk: Desks, issuer: LocalIssuer) -> None:
    address = await desk().oidc.logout_address()
    assert address == (
        f"{issuer.url}/end?client_id={CLIENT}&post_logout_redirect_uri=http%3A%2F%2F127.0.0.1%3A8090%2Flogin"
    )
    for end in ("", "javascript:alert(1)"):
        issuer.discovery = {"end_session_endpoint": end}
        assert await desk().oidc.logout_address() is None


async def test_scopes_are_those_that_the_issuer_offers_and_those_asked_for(desk: Desks) -> None:
    import httpx2

    address, _ = await desk(scopes=("offline_access",)).oidc.begin("/")
    assert httpx2.URL(address).params["scope"] == "openid groups offline_access"
