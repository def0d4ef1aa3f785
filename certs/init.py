"""Key generation, `airunner certs init`: makes every key that one installation needs.

Guarantees
- Existing keys are never changed: a second run changes nothing, and a run after an interrupted run makes what is
  missing. The allow-list, if it exists, gets a line for a new client key.
- A public key is always derived from the secret key on disk, so two runs at once cannot mix two pairs. If the two
  keys of a pair exist and do not belong together, the operator has to decide.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.certs import curve, tokenkeys
from airunner.certs.allowlist import Entry, PeerRole, with_entry
from airunner.certs.home import Home
from airunner.certs.ownership import refuse_foreign_owner
from airunner.certs.secretfile import create, locked, make_folder, read_public, replace
from airunner.protocol.errors import OperatorError

FIRST_CLIENT: Final = Entry("local", frozenset({PeerRole.CLIENT, PeerRole.AGENT}))


class InitReport(Struct, frozen=True):
    """Report of `init`: the files that were made, and the files that existed already."""

    made: tuple[Path, ...]
    kept: tuple[Path, ...]


def init(home: Home) -> InitReport:
    """Make the keys that are missing in `home`.

    Raises `OperatorError`: `home` is not writable, or its existing keys are damaged or do not belong together.
    """
    refuse_foreign_owner(home.root, home.certs)
    make_folder(home.certs)
    with locked(home.certs):
        made = [*_complete_broker(home), *_complete_client(home), *_complete_token(home)]
    curve_keys = (home.broker_public, home.broker_secret, home.client_public, home.client_secret)
    wanted = (*curve_keys, home.allowed_clients, home.token_public, home.token_secret)
    return InitReport(made=tuple(made), kept=tuple(path for path in wanted if path not in made))


def _complete_broker(home: Home) -> list[Path]:
    made = complete_curve(home.broker_secret, home.broker_public, "the broker's")
    curve.load_broker_pair(home)
    return made


def _complete_client(home: Home) -> list[Path]:
    """Make the key pair of the first agent and client, and add it to the allow-list.

    When the list exists, only a new pair is added: an older pair may have been revoked.
    """
    made = complete_curve(home.client_secret, home.client_public, "this machine's")
    public = curve.load_client_pair(home).public
    if not home.allowed_clients.exists():
        create(home.allowed_clients, with_entry(b"", public, FIRST_CLIENT))
        made.append(home.allowed_clients)
    elif home.client_secret in made:
        listed = read_public(home.allowed_clients, "the allow-list")
        replace(home.allowed_clients, with_entry(listed, public, FIRST_CLIENT))
    return made


def _complete_token(home: Home) -> list[Path]:
    def derive() -> bytes:
        return tokenkeys.public_pem(tokenkeys.load_signing_key({}, home).public_key())

    made = _complete(home.token_secret, home.token_public, tokenkeys.new_signing_pem, derive)
    if tokenkeys.load_signing_key({}, home).public_key() not in tokenkeys.load_verifying_keys({}, home):
        raise OperatorError(curve.mismatch(home.token_public, home.token_secret))
    return made


def complete_curve(secret: Path, public: Path, whose: str) -> list[Path]:
    """Make a pair of X25519 keys, Z85, or its missing public key; `whose` names it in errors. Lock the folder first."""

    def derive() -> bytes:
        return curve.public_of(curve.load_secret(secret, whose)) + b"\n"

    return _complete(secret, public, lambda: curve.new_secret() + b"\n", derive)


def _complete(secret: Path, public: Path, generate: Callable[[], bytes], derive: Callable[[], bytes]) -> list[Path]:
    """Make a pair, or its missing public key: the secret key first, then the public key from the one on disk."""
    if public.exists() and not secret.exists():
        raise OperatorError(
            f"{public} exists and {secret} does not: put the secret key back, or move {public} away for a new pair "
            "(machines that have the old public key then need the new one)"
        )
    made: list[Path] = []
    if not secret.exists() and create(secret, generate()):
        made.append(secret)
    if not public.exists() and create(public, derive()):
        made.append(public)
    return made
