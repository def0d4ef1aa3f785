"""Only an EC key on P-256 signs or verifies tokens, and its name follows from it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from airunner.certs.home import Home
from airunner.certs.secretfile import create
from airunner.certs.tokenkeys import (
    find_signing_key,
    load_signing_key,
    load_verifying_keys,
    new_signing_pem,
    parse_public_keys,
    parse_signing_key,
    public_pem,
    thumbprint,
)
from airunner.protocol.errors import OperatorError

PRIVATE_PEM = new_signing_pem()
PRIVATE = parse_signing_key(PRIVATE_PEM, "test")
PUBLIC_PEM = public_pem(PRIVATE.public_key())

OTHER_KINDS = [
    pytest.param(ec.generate_private_key(ec.SECP384R1()), id="P-384"),
    pytest.param(ec.generate_private_key(ec.SECP256K1()), id="secp256k1"),
    pytest.param(rsa.generate_private_key(65_537, 2_048), id="RSA"),
    pytest.param(ed25519.Ed25519PrivateKey.generate(), id="Ed25519"),
]


def test_a_thumbprint_is_the_one_of_the_standard() -> None:
    """The key and its `jkt` of RFC 9449, section 6.1."""
    x, y = (
        int.from_bytes(base64.urlsafe_b64decode(text + "="), "big")
        for text in ("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA")
    )
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    assert thumbprint(key) == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def test_the_variables_come_before_the_homes_keys_and_hold_pem_or_a_path(broker: Home, tmp_path: Path) -> None:
    assert load_verifying_keys({}, broker) == [load_signing_key({}, broker).public_key()]
    create(tmp_path / "private.pem", PRIVATE_PEM)
    create(tmp_path / "public.pem", PUBLIC_PEM)
    (tmp_path / "public.pem").chmod(0o644)
    for public, private in (
        (PUBLIC_PEM.decode(), PRIVATE_PEM.decode()),
        (PUBLIC_PEM.decode().replace("\n", "\\n"), PRIVATE_PEM.decode().replace("\n", "\\n")),
        (str(tmp_path / "public.pem"), str(tmp_path / "private.pem")),
    ):
        environ = {"JWT_PUBLIC_KEY": public, "JWT_SIGNING_KEY": private}
        assert load_verifying_keys(environ, broker) == [PRIVATE.public_key()]
        assert load_signing_key(environ, broker).public_key() == PRIVATE.public_key()


def test_several_public_keys_may_stand_in_one_text(home: Home) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    environ = {"JWT_PUBLIC_KEY": (PUBLIC_PEM + b"and the next:\n" + public_pem(other)).decode()}
    assert load_verifying_keys(environ, home) == [PRIVATE.public_key(), other]


def test_a_missing_key_says_what_to_do_and_nobody_has_to_have_a_signing_key(home: Home) -> None:
    assert find_signing_key({}, home) is None
    with pytest.raises(OperatorError, match=r"the token verification key .* is missing: run `airunner certs init`"):
        load_verifying_keys({}, home)
    with pytest.raises(OperatorError, match=r"the token signing key .* is missing: run `airunner certs init`"):
        load_signing_key({}, home)
    with pytest.raises(OperatorError, match=r"/nowhere is missing: JWT_PUBLIC_KEY takes PEM text or the path"):
        load_verifying_keys({"JWT_PUBLIC_KEY": "/nowhere"}, home)
    with pytest.raises(OperatorError, match=r"/nowhere is missing: JWT_SIGNING_KEY takes"):
        find_signing_key({"JWT_SIGNING_KEY": "/nowhere"}, home)


@pytest.mark.parametrize("key", OTHER_KINDS)
def test_a_key_of_another_kind_is_refused(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for parse, pem in ((parse_signing_key, private), (parse_public_keys, public)):
        with pytest.raises(OperatorError, match=r"here holds a key of another kind: tokens need an EC key"):
            parse(pem, "here")


ENCRYPTED = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


@pytest.mark.parametrize(
    ("parse", "pem", "why"),
    [
        (parse_public_keys, b"", "holds no PEM public key"),
        (parse_public_keys, PRIVATE_PEM, "holds a private key"),
        (parse_public_keys, PUBLIC_PEM + PRIVATE_PEM, "holds a private key"),
        (parse_public_keys, PUBLIC_PEM.replace(b"MFk", b"AAA"), "holds a damaged public key"),
        (parse_public_keys, b"-----BEGIN PUBLIC KEY-----\n\n-----END PUBLIC KEY-----", "holds a damaged public key"),
        (parse_signing_key, b"", "holds no PEM private key"),
        (parse_signing_key, PUBLIC_PEM, "holds no PEM private key"),
        (parse_signing_key, PRIVATE_PEM[:-60], "holds no PEM private key"),
        (parse_signing_key, ENCRYPTED, "is encrypted"),
    ],
)
def test_what_is_no_usable_key_is_named(parse: Callable[[bytes, str], object], pem: bytes, why: str) -> None:
    with pytest.raises(OperatorError, match=rf"^here {why}"):
        parse(pem, "here")
