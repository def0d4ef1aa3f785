"""ES256 keys that sign and verify tokens, and the order in which each process looks for its key.

| who           | first              | then                              | else                           |
|---------------|--------------------|-----------------------------------|--------------------------------|
| broker        | `--jwt-public-key` | `JWT_PUBLIC_KEY` (one or several) | the home's `token.public.pem`  |
| the signer    | `--signing-key`    | `JWT_SIGNING_KEY`                 | the home's `token.secret.pem`  |

Each variable holds PEM text or the path of a PEM file. A key is on the curve P-256 and is used for ES256 only
(RFC 8725, 3.1 and 3.2). Its name, the `kid`, is its RFC 7638 thumbprint: the two sides need not agree on a name,
and a name cannot refer to another key. Functions that load or parse keys raise `OperatorError`: a key is missing,
unreadable, encrypted or of another kind.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from airunner.certs.home import Home
from airunner.certs.tokenpem import find_signing_pem, read_signing_pem, read_verifying_pem
from airunner.protocol.errors import OperatorError

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


def new_signing_pem() -> bytes:
    """Generate a private key, PEM (PKCS #8)."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """Encode the public key `key` as PEM (SubjectPublicKeyInfo)."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the thumbprint of a P-256 key: 43 characters (RFC 7638, with the members of RFC 7518, 6.2.1)."""
    numbers = key.public_numbers()
    x, y = (_base64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return _base64url(sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()).digest())


def load_verifying_keys(
    environ: Mapping[str, str], home: Home, file: Path | None = None
) -> list[ec.EllipticCurvePublicKey]:
    """Load the public keys that the broker verifies tokens with: those in `file` when it is given."""
    return parse_public_keys(*read_verifying_pem(environ, home, file))


def load_signing_key(environ: Mapping[str, str], home: Home, file: Path | None = None) -> ec.EllipticCurvePrivateKey:
    """Load the private key that signs tokens: that in `file` when it is given."""
    return parse_signing_key(*read_signing_pem(environ, home, file))


def find_signing_key(environ: Mapping[str, str], home: Home) -> ec.EllipticCurvePrivateKey | None:
    """Find the private key that signs tokens; None when this machine has none."""
    found = find_signing_pem(environ, home)
    return None if found is None else parse_signing_key(*found)


def parse_public_keys(pem: bytes, where: str) -> list[ec.EllipticCurvePublicKey]:
    """Parse every public key in `pem`; `where` names the source in errors."""
    if b"PRIVATE KEY-----" in pem:
        raise OperatorError(f"{where} holds a private key: give the broker the public key")
    keys: list[ec.EllipticCurvePublicKey] = []
    for block in _BLOCK.finditer(pem):
        try:
            key = load_pem_public_key(block[0])
        except (ValueError, UnsupportedAlgorithm) as error:
            raise OperatorError(f"{where} holds a damaged public key") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise OperatorError(f"{where} holds a key of another kind: tokens need an EC key on P-256 (ES256)")
        keys.append(key)
    if not keys:
        raise OperatorError(f"{where} holds no PEM public key")
    return keys


def parse_signing_key(pem: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    """Parse the private key in `pem`; `where` names the source in errors."""
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise OperatorError(
            f"{where} is encrypted: use a key without a passphrase, in a file with mode 0600"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise OperatorError(f"{where} holds no PEM private key, or a damaged one") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise OperatorError(f"{where} holds a key of another kind: tokens need an EC key on P-256 (ES256)")
    return key


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
