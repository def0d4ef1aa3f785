"""Signatures of logs: an agent signs its attempts' events with a key of its machine, which no broker needs to have.

The key is an Ed25519 key that is derived from the machine's `client.secret`, so every home has one already. A verifier
needs the public keys. `signers` finds them

- in the file `certs/signers`, one line for each: `PUBLIC-KEY NAME`, the key in Z85;
- and derives them from the secret keys of agents that are in this home: its own, and those made here for others.

`airunner certs signers` prints them, an exported file carries them, and a key whose pair leaves this home is written to
the file first, so that logs which it signed can be verified for ever.

Source: Ed25519, RFC 8032
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from airunner.certs.allowlist import PeerRole, parse
from airunner.certs.curve import load_secret, public_of, raw_key, text_key
from airunner.certs.home import Home
from airunner.certs.secretfile import read_public, replace
from airunner.protocol.errors import OperatorError

THIS_MACHINE: Final = "this-machine"  # name of this home's own key, where no file has another
_PERSON: Final = b"airunner log"
_PREFACE: Final = b"# Keys that verify the logs of agents: PUBLIC-KEY NAME; `airunner certs signers` prints them\n"


class LogSigner:
    """Signer of logs, with the key of the machine whose secret CURVE key (Z85) is `secret`."""

    def __init__(self, secret: bytes) -> None:
        seed = blake2b(key=raw_key(secret), digest_size=32, person=_PERSON).digest()
        self._key = SigningKey(seed)
        self.public = bytes(self._key.verify_key)

    def sign(self, statement: bytes) -> bytes:
        """Return the signature of a statement, 64 bytes."""
        return self._key.sign(statement).signature


def is_signed(public: bytes, statement: bytes, signature: bytes) -> bool:
    """Return whether the holder of the key made this signature of the statement."""
    try:
        VerifyKey(public).verify(statement, signature)
    except BadSignatureError:
        return False
    return True


def signers(home: Home) -> dict[bytes, str]:
    """Return the name of each signer that this home knows, by its raw public key. Raises `OperatorError`."""
    known = dict(_listed(home))
    has_list = home.allowed_clients.exists()
    allowed = parse(read_public(home.allowed_clients, "the allow-list"))[0] if has_list else {}
    for path in (home.client_secret, *sorted(home.clients.glob("*.secret"))):
        if path.exists():
            secret = load_secret(path, f"{path.stem}'s")
            entry = allowed.get(raw_key(public_of(secret)))
            if not has_list or (entry is not None and PeerRole.AGENT in entry.roles):
                name = entry.name if entry is not None else ""  # which may be empty too
                known.setdefault(LogSigner(secret).public, name or THIS_MACHINE)
    return known


def signer_lines(known: Mapping[bytes, str]) -> str:
    """Format signers as lines of the file."""
    return "".join(f"{text_key(public)} {name}\n" for public, name in sorted(known.items(), key=lambda item: item[1]))


def parse_signers(content: str, where: str) -> dict[bytes, str]:
    """Parse lines of the file. Raises `OperatorError`: a line is not `PUBLIC-KEY NAME`."""
    known: dict[bytes, str] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        key, _, name = line.strip().partition(" ")
        try:
            known[raw_key(key.encode())] = name.strip()
        except ValueError as error:
            raise OperatorError(f"{where}, line {number}: {error}; a line is: PUBLIC-KEY NAME") from error
        if not name.strip() or not name.isprintable():
            raise OperatorError(f"{where}, line {number}: expected the agent's name behind its key")
    return known


def add_signers(home: Home, known: Mapping[bytes, str]) -> None:
    """Write signers to the file, behind those that are in it. Lock the folder first."""
    listed = _listed(home)
    if new := {public: name for public, name in known.items() if public not in listed}:
        before = home.signers.read_bytes() if home.signers.exists() else _PREFACE
        replace(home.signers, before + signer_lines(new).encode())


def _listed(home: Home) -> dict[bytes, str]:
    if not home.signers.exists():
        return {}
    return parse_signers(read_public(home.signers, "the list of signers").decode(errors="replace"), str(home.signers))
