"""A token is believed when it was made by one of our keys, for us, and is valid now; and only then."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from airunner.certs.authority import NoVerifier
from airunner.certs.principal import ALL_ROLES, ANONYMOUS, DEFAULT_TENANT, Principal, Role
from airunner.certs.tokenkeys import new_signing_pem, parse_signing_key, public_pem, thumbprint
from airunner.certs.tokens import TokenSigner
from airunner.certs.tokenverifier import LEEWAY_S, CachedVerifier, TokenVerifier
from airunner.protocol.errors import OperatorError, Unauthenticated
from airunner.protocol.frames import TOKEN_BYTES_MAX

NOW_S = 1_800_000_000.0
KEY = parse_signing_key(new_signing_pem(), "test")
OTHER_KEY = parse_signing_key(new_signing_pem(), "test")
STRANGER = parse_signing_key(new_signing_pem(), "test")
P384_KEY = ec.generate_private_key(ec.SECP384R1())
RSA_KEY = rsa.generate_private_key(65_537, 2_048)
PUBLIC_PEM = public_pem(KEY.public_key())
KID = thumbprint(KEY.public_key())
HEADER = {"alg": "ES256", "kid": KID, "typ": "JWT"}
CLAIMS = {
    "iss": "airunner",
    "aud": "airunner",
    "sub": "ada",
    "tenant": "team",
    "roles": ["submit", "read"],
    "iat": int(NOW_S),
    "exp": int(NOW_S) + 600,
}
VERIFIER = TokenVerifier([KEY.public_key(), OTHER_KEY.public_key()])


def segment(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def sign(signed: bytes) -> bytes:
    return jwt.PyJWS(algorithms=["ES256"]).get_algorithm_by_name("ES256").sign(signed, KEY)


def forge(header: object, claims: object, sign: Callable[[bytes], bytes] = sign) -> bytes:
    """Any header over any claims, or bytes in their place; signed with `KEY`, unless with something else."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = segment(json.dumps(header).encode()) + b"." + segment(payload)
    return signed + b"." + segment(sign(signed))


def encode(
    claims: Mapping[str, object] = CLAIMS,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY,
    alg: str = "ES256",
    kid: str | None = KID,
) -> bytes:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(dict(claims), key, algorithm=alg, headers=headers).encode()


def with_claims(**changes: object) -> bytes:
    return encode({**CLAIMS, **changes})


def without(claim: str) -> bytes:
    return encode({name: value for name, value in CLAIMS.items() if name != claim})


def hs256_with_the_public_key(signed: bytes) -> bytes:
    """What an ES256 verifier that believes `alg` would take: the public key as a shared secret."""
    return hmac.digest(PUBLIC_PEM, signed, hashlib.sha256)


REFUSED = {
    "no token": (b"", "a token is needed"),
    "another spelling of its signature": (encode() + b"!", "is not a JWT"),
    "another spelling of its claims": (encode().replace(b".", b".\n", 1), "is not a JWT"),
    "garbage": (b"garbage", "is not a JWT"),
    "two segments": (encode().rpartition(b".")[0], "is not a JWT"),
    "four segments": (encode() + b".x", "is not a JWT|signature is not valid"),
    "not base64": (b"~." + encode().partition(b".")[2], "is not a JWT"),
    "not UTF-8": (segment(b"\xff\xfe") + b".e30.e30", "is not a JWT"),
    "not ASCII": ("ключ.e30.e30".encode(), "is not a JWT"),
    "a header that is a list": (forge([], CLAIMS), "is not a JWT"),
    "a header nested deeply": (segment(b"[" * 6_000) + b".e30.e30", "is not a JWT"),
    "oversized": (encode({**CLAIMS, "x": "x" * TOKEN_BYTES_MAX}), "is longer than 8192 bytes"),
    "alg none": (forge({**HEADER, "alg": "none"}, CLAIMS, lambda _: b""), "is not signed with ES256"),
    "alg None": (forge({**HEADER, "alg": "None"}, CLAIMS, lambda _: b""), "is not signed with ES256"),
    "alg a list": (forge({**HEADER, "alg": ["ES256"]}, CLAIMS), "is not a JWT"),
    "alg missing": (forge({"kid": KID}, CLAIMS), "is not a JWT"),
    "ES256 without a signature": (forge(HEADER, CLAIMS, lambda _: b""), "signature is not valid"),
    "ES256 with a signature of zeros": (forge(HEADER, CLAIMS, lambda _: bytes(64)), "signature is not valid"),
    "HS256 with the public key": (
        forge({**HEADER, "alg": "HS256"}, CLAIMS, hs256_with_the_public_key),
        "is not signed with ES256",
    ),
    "RS256": (encode(key=RSA_KEY, alg="RS256"), "is not signed with ES256"),
    "ES384": (encode(key=P384_KEY, alg="ES384"), "is not signed with ES256"),
    "kid missing": (encode(kid=None), "does not name the key"),
    "kid unknown": (encode(key=STRANGER, kid=thumbprint(STRANGER.public_key())), "this broker does not know"),
    "kid a path": (encode(kid="../../dev/null"), "a key that this broker does not know"),
    "kid a number": (forge({**HEADER, "kid": 1}, CLAIMS), "is not a JWT"),
    "kid of another key of ours": (encode(kid=thumbprint(OTHER_KEY.public_key())), "signature is not valid"),
    "kid of ours on a stranger's token": (encode(key=STRANGER), "signature is not valid"),
    "a key brought along": (forge({**HEADER, "kid": "x", "jwk": {}, "jku": "http://127.0.0.1"}, CLAIMS), "not know"),
    "of another type": (forge({**HEADER, "typ": "dpop+jwt"}, CLAIMS), "type is not JWT"),
    "crit": (forge({**HEADER, "crit": ["x"], "x": 1}, CLAIMS), r"is not a JWT|\(crit\)"),
    "b64 false": (forge({**HEADER, "crit": ["b64"], "b64": False}, CLAIMS), r"is not a JWT|\(crit\)"),
    "expired": (with_claims(exp=NOW_S - 1), "expired at 2027-01-15T07:59:59Z, and the broker's clock shows 2027"),
    "expired this instant": (with_claims(exp=NOW_S), "expired at 2027-01-15T08:00:00Z"),
    "issued in the future": (with_claims(iat=NOW_S + LEEWAY_S + 1), "valid from 2027-01-15T08:01:01Z"),
    "not yet valid": (with_claims(nbf=NOW_S + LEEWAY_S + 1), "valid from 2027-01-15T08:01:01Z"),
    "wrong issuer": (with_claims(iss="elsewhere"), r"issuer \(iss\) is not 'airunner'"),
    "wrong audience": (with_claims(aud="elsewhere"), r"audience \(aud\) is not 'airunner'"),
    "several audiences, none of them us": (with_claims(aud=["a", "b"]), r"audience \(aud\) is not 'airunner'"),
    "no audience in the list": (with_claims(aud=[]), r"audience \(aud\) is not 'airunner'"),
    **{f"{claim} missing": (without(claim), f"missing required field `{claim}`") for claim in CLAIMS},
    "exp a text": (with_claims(exp=str(NOW_S + 600)), r"\$.exp"),
    "exp a truth value": (with_claims(exp=True), r"\$.exp"),
    "exp beyond all time": (forge(HEADER, {**CLAIMS, "exp": 1e300}), r"\$.exp"),
    "exp infinite": (forge(HEADER, {**CLAIMS, "exp": float("inf")}), "claims"),
    "exp not a number": (forge(HEADER, {**CLAIMS, "exp": float("nan")}), "claims"),
    "iat negative": (with_claims(iat=-1), r"\$.iat"),
    "sub empty": (with_claims(sub=""), r"\$.sub"),
    "tenant outside its alphabet": (with_claims(tenant="a b"), r"\$.tenant"),
    "queue outside its alphabet": (with_claims(queues=["a b"]), r"\$.queues"),
    "no queue at all": (with_claims(queues=[]), r"\$.queues"),
    "roles a text": (with_claims(roles="admin"), r"\$.roles"),
    "a role that does not exist": (with_claims(roles=["root"]), r"\$.roles"),
    **{
        f"claims of {payload[:9]}": (forge(HEADER, payload), "claims")
        for payload in (b"[]", b"\xff", b'{"iss": "\xff"}', b"{", b'{"x":' + b"[" * 5_000, b'{"x": 1e999}')
    },
    "claims nested deeply": (forge(HEADER, json.loads("[" * 900 + "]" * 900)), "claims"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_every_other_token_is_refused_and_its_fault_named(case: str) -> None:
    token, why = REFUSED[case]
    with pytest.raises(Unauthenticated, match=why) as caught:
        VERIFIER.verify(token, NOW_S)
    assert caught.value.code == "unauthenticated"
    assert not any(part and len(part) > 8 and part.decode() in caught.value.message for part in token.split(b"."))


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
@pytest.mark.parametrize("queues", [None, frozenset({"ci", "x/y"})])
@pytest.mark.parametrize("caches", [frozenset(), frozenset({"*", "release"})])
def test_a_token_of_any_of_our_keys_is_believed(
    key: ec.EllipticCurvePrivateKey, queues: frozenset[str] | None, caches: frozenset[str]
) -> None:
    claims = {"subject": "ada", "tenant": "team", "roles": {Role.READ}, "queues": queues, "caches": caches}
    token = TokenSigner(key).mint(**claims, ttl_s=60, now_s=NOW_S)
    assert VERIFIER.verify(token.encode(), NOW_S) == Principal(
        "ada", "team", frozenset({Role.READ}), NOW_S + 60, queues=queues, cache_labels=caches
    )


@pytest.mark.parametrize(
    "token",
    [
        with_claims(aud=["elsewhere", "airunner"]),
        with_claims(unknown={"nested": [1]}),
        with_claims(exp=NOW_S + 0.5),
        with_claims(iat=NOW_S + LEEWAY_S),
        with_claims(nbf=NOW_S),
        forge({"alg": "ES256", "kid": KID}, CLAIMS),
        forge({**HEADER, "typ": "jwt"}, CLAIMS),
        forge({**HEADER, "x5u": "http://127.0.0.1"}, CLAIMS),
    ],
)
def test_a_token_made_elsewhere_by_the_rules_is_believed(token: bytes) -> None:
    assert VERIFIER.verify(token, NOW_S).subject == "ada"


@given(st.binary(max_size=200) | st.lists(st.binary(max_size=40).map(segment), max_size=4).map(b".".join))
def test_no_bytes_of_somebody_else_are_believed(token: bytes) -> None:
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(token, NOW_S)


@given(st.data())
def test_a_token_changed_anywhere_is_not_believed_or_says_the_same(data: st.DataObject) -> None:
    token = bytearray(TOKEN)
    token[data.draw(st.integers(0, len(token) - 1))] = data.draw(st.integers(0, 255))
    try:
        principal = VERIFIER.verify(bytes(token), NOW_S)
    except Unauthenticated:
        return
    assert principal == VERIFIER.verify(TOKEN, NOW_S)


words = st.text("aE1/é.\0", max_size=9)
header_values = st.none() | st.booleans() | st.integers() | words | st.lists(words, max_size=2)


@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip", "x"]), header_values),
    st.dictionaries(st.sampled_from([*CLAIMS, "nbf"]), header_values),
)
def test_whatever_a_header_or_a_claim_holds_there_is_one_kind_of_error(
    header: dict[str, object], claims: dict[str, object]
) -> None:
    for token in (forge({**HEADER, **header}, CLAIMS), forge(HEADER, {**CLAIMS, **claims})):
        with contextlib.suppress(Unauthenticated):
            VERIFIER.verify(token, NOW_S)


@pytest.mark.parametrize(
    ("subject", "tenant", "ttl_s", "why"),
    [
        ("", "team", 60, "--subject: expected text, and it is empty"),
        ("s" * 129, "team", 60, "--subject: expected at most 128 characters, not 129"),
        ("\udcff", "team", 60, "--subject: bytes that are not UTF-8 text cannot be sent"),
        ("a\u200bb", "team", 60, r"--subject: a\\u200bb contains a control character or an invisible one"),
        ("ada", "a b", 60, "--tenant: expected 1 to 128 letters, digits and any of .*, not 'a b'"),
        ("ada", "team", 0, "the lifetime of a token is 1 s to"),
        ("ada", "team", -60, "the lifetime of a token is 1 s to"),
        ("ada", "team", 1e12, "the lifetime of a token is 1 s to"),
        ("ada", "team", float("nan"), "the lifetime of a token is 1 s to"),
    ],
)
def test_a_token_that_no_broker_would_take_is_not_minted(subject: str, tenant: str, ttl_s: float, why: str) -> None:
    with pytest.raises(OperatorError, match=why):
        TokenSigner(KEY).mint(subject=subject, tenant=tenant, ttl_s=ttl_s, now_s=NOW_S)


def test_a_label_that_no_cache_can_have_is_in_no_token() -> None:
    with pytest.raises(OperatorError, match="the broker would refuse"):
        TokenSigner(KEY).mint(subject="ada", caches=frozenset({"Release"}), ttl_s=60, now_s=NOW_S)


def test_the_shortest_token_is_valid_at_once() -> None:
    token = TokenSigner(KEY).mint(subject="ada", ttl_s=1, now_s=NOW_S + 0.999)
    assert VERIFIER.verify(token.encode(), NOW_S + 0.999).roles == ALL_ROLES


class CountingVerifier:
    """What a cache is in front of."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def verify(self, token: bytes, now_s: float) -> Principal:
        self.asked.append(token)
        return VERIFIER.verify(token, now_s)


TOKEN = TokenSigner(KEY).mint(subject="ada", ttl_s=600, now_s=NOW_S).encode()
TOKENS = [TokenSigner(KEY).mint(subject=f"ada-{number}", ttl_s=600, now_s=NOW_S).encode() for number in range(4)]


def test_a_token_is_verified_once_and_known_until_it_expires_like_any_other() -> None:
    inner = CountingVerifier()
    cached = CachedVerifier(inner)
    with pytest.raises(Unauthenticated, match=r"valid from"):
        cached.verify(TOKEN, NOW_S - LEEWAY_S - 1)
    assert cached.known(TOKEN, NOW_S) is None, "a refusal is not remembered"
    assert {cached.verify(TOKEN, NOW_S + later) for later in range(600)} == {VERIFIER.verify(TOKEN, NOW_S)}
    assert cached.known(TOKEN, NOW_S + 599) == VERIFIER.verify(TOKEN, NOW_S)
    assert inner.asked == [TOKEN] * 2
    assert cached.known(TOKEN, NOW_S + 600) is None
    for _ in range(2):
        with pytest.raises(Unauthenticated, match=r"expired"):
            cached.verify(TOKEN, NOW_S + 600)


def test_a_token_that_is_known_lends_nothing_to_one_with_another_signature() -> None:
    cached = CachedVerifier(VERIFIER)
    cached.verify(TOKENS[0], NOW_S)
    cached.verify(TOKENS[1], NOW_S)
    signed, _, _ = TOKENS[0].rpartition(b".")
    _, _, others = TOKENS[1].rpartition(b".")
    for signature in (others, b"", b"x" * len(others)):
        assert cached.known(signed + b"." + signature, NOW_S) is None
        with pytest.raises(Unauthenticated):
            cached.verify(signed + b"." + signature, NOW_S)


def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    inner = CountingVerifier()
    cached = CachedVerifier(inner, entries_max=3)
    for number in (0, 1, 2, 0, 3, 0, 2, 3, 1):  # 3 puts out 1, and so 1 has to be verified again
        cached.verify(TOKENS[number], NOW_S)
    assert inner.asked == [TOKENS[number] for number in (0, 1, 2, 3, 1)]


def test_without_verification_every_sender_is_anonymous_and_may_do_everything_in_the_default_tenant() -> None:
    assert NoVerifier().verify(b"whatever", NOW_S) == ANONYMOUS
    assert (ANONYMOUS.roles, ANONYMOUS.tenant) == (ALL_ROLES, DEFAULT_TENANT)
