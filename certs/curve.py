"""CURVE key pairs, which identify the machine at the other end of a socket.

A key has 32 bytes; files, the allow-list and socket options hold it as 40 characters of Z85. The secret key determines
the public key, so when two files disagree the secret key is right. The functions that load keys raise `OperatorError`:
a key is missing, unreadable or malformed, or belongs to another pair. `whose` or `what` names the key in the message.

ZeroMQ is imported only when a key is made, encoded or decoded, so that modules such as the allow-list load without it.

Source: CurveZMQ, https://rfc.zeromq.org/spec/26/ and Z85, https://rfc.zeromq.org/spec/32/
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from airunner.certs.home import Home
from airunner.certs.secretfile import RUN_INIT, read_public, read_secret
from airunner.protocol.errors import OperatorError

SERVER_KEY: Final = "AIRUNNER_SERVER_KEY"  # variable with the broker's public key, instead of the home's file
Z85_KEY_CHARS: Final = 40
RAW_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class CurvePair:
    """The key pair of one machine: each key has `Z85_KEY_CHARS` of Z85, as ZeroMQ's socket options take it.

    It is a dataclass, because a dataclass can omit a field from its repr, and so from tracebacks and logs.
    """

    public: bytes
    secret: bytes = field(repr=False)


def raw_key(text: bytes) -> bytes:
    """Decode a Z85 key to its `RAW_KEY_BYTES` bytes. Raises `ValueError`: the length is wrong, or it is not Z85."""
    if len(text) != Z85_KEY_CHARS:
        raise ValueError(f"a key has {Z85_KEY_CHARS} characters, not {len(text)}")
    from zmq.utils import z85

    try:
        return z85.decode(text)
    except (KeyError, struct.error):  # a character that Z85 does not have, or five characters that exceed 32 bits
        raise ValueError("the key is not Z85") from None  # the cause would show characters of a key


def text_key(raw: bytes) -> str:
    """Encode the `RAW_KEY_BYTES` bytes of a key as Z85."""
    from zmq.utils import z85

    return z85.encode(raw).decode("ascii")


def new_secret() -> bytes:
    """Generate a secret key, Z85."""
    import zmq

    return zmq.curve_keypair()[1]


def public_of(secret: bytes) -> bytes:
    """Return the public key, Z85, that belongs to the secret key `secret`."""
    import zmq

    return zmq.curve_public(secret)


def load_broker_pair(home: Home) -> CurvePair:
    """Load the broker's key pair."""
    return load_pair(home.broker_public, home.broker_secret, "the broker's")


def load_client_pair(home: Home) -> CurvePair:
    """Load this machine's key pair, for its agent, client or monitor."""
    remedy, if_mismatched = RUN_INIT, ""
    if is_carried(home):
        file = "with a file from `airunner certs export` on the broker's machine"
        remedy = f"run `airunner certs import FILE`, {file}"
        if_mismatched = f"run `airunner certs import --force FILE`, {file}"
    elif is_brokers_only(home):
        remedy = "this home is a further broker's of a fleet: use one with the keys of an agent or client"
    elif not home.broker_secret.exists():
        elsewhere = "`airunner certs import FILE` if the broker is on another machine"
        remedy = f"run `airunner up` to start a cluster here, or {elsewhere}"
    return load_pair(
        home.client_public, home.client_secret, "this machine's", if_missing=remedy, if_mismatched=if_mismatched
    )


def is_carried(home: Home) -> bool:
    """Return whether the keys were imported from the broker's machine, so `airunner certs init` cannot make them."""
    return home.broker_public.exists() and not home.broker_secret.exists()


def is_brokers_only(home: Home) -> bool:
    """Return whether the keys are those of a further broker of a fleet, which no agent or client has."""
    return home.broker_secret.exists() and not (home.client_secret.exists() or home.token_secret.exists())


def load_broker_public(home: Home, given: str = "") -> bytes:
    """Load the broker's public key, Z85, `given` or of the home: a broker must prove that it has the secret key."""
    if given:
        return key_in(given.encode(), SERVER_KEY, "the broker's public key")
    remedy = "run `airunner certs import FILE`, or `airunner certs init` if this is the broker's machine"
    what = "the broker's public key"
    return key_in(read_public(home.broker_public, what, if_missing=remedy), home.broker_public, what)


def load_pair(
    public_path: Path, secret_path: Path, whose: str, *, if_missing: str = RUN_INIT, if_mismatched: str = ""
) -> CurvePair:
    """Load the key pair in these two files."""
    what = f"{whose} public key"
    secret = load_secret(secret_path, whose, if_missing=if_missing)
    public = key_in(read_public(public_path, what, if_missing=if_missing), public_path, what)
    if public != public_of(secret):
        raise OperatorError(mismatch(public_path, secret_path, if_mismatched))
    return CurvePair(public, secret)


def load_secret(path: Path, whose: str, *, if_missing: str = RUN_INIT) -> bytes:
    """Load the secret key in this file, Z85."""
    what = f"{whose} secret key"
    return key_in(read_secret(path, what, if_missing=if_missing), path, what)


def mismatch(public_path: Path, secret_path: Path, remedy: str = "") -> str:
    """Return the error message for two halves of different pairs."""
    again = f"move {public_path} away and run `airunner certs init`, which makes it again from the secret key"
    return f"{public_path} does not belong to {secret_path}: {remedy or again}"


def key_in(content: bytes, path: Path | str, what: str) -> bytes:
    """Return the Z85 key in the `content` of the file or variable `path`."""
    text = content.strip()
    try:
        raw_key(text)
    except ValueError as error:
        raise OperatorError(f"{what} {path} is damaged: {error}") from error
    return text
