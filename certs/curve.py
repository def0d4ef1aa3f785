"""CURVE key pairs: which machine is at the other end of a socket.

A key is 32 bytes; in files, on the allow-list and in socket options it stands as 40 characters of Z85.
The secret key determines the public one, so of two files that disagree the secret is right.

Source: CurveZMQ, https://rfc.zeromq.org/spec/26/ and Z85, https://rfc.zeromq.org/spec/32/
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zmq
from zmq.utils import z85

from airunner.certs.home import Home
from airunner.certs.secretfile import RUN_INIT, read_public, read_secret
from airunner.protocol.errors import OperatorError

Z85_KEY_CHARS: Final = 40
RAW_KEY_BYTES: Final = 32
IMPORT: Final = "run `airunner certs import FILE`, with what `airunner certs export` makes on the broker's machine"


class Mismatch(OperatorError):
    """Two halves of different pairs."""


@dataclass(frozen=True, slots=True)
class CurvePair:
    """One machine's keys, each `Z85_KEY_CHARS` of Z85, as `zmq.CURVE_PUBLICKEY` and its kin take them.

    A dataclass, since it can keep a field out of every repr (and so out of a traceback or a log).
    """

    public: bytes
    secret: bytes = field(repr=False)


def raw_key(text: bytes) -> bytes:
    """The `RAW_KEY_BYTES` bytes of the key that `text` is the Z85 of.

    Raises `ValueError`: not `Z85_KEY_CHARS` characters, or not Z85.
    """
    if len(text) != Z85_KEY_CHARS:
        raise ValueError(f"a key has {Z85_KEY_CHARS} characters, not {len(text)}")
    try:
        return z85.decode(text)
    except (KeyError, struct.error):  # a character outside the alphabet, or five that exceed 32 bits
        raise ValueError("the key is not Z85") from None  # the cause would show characters of a key


def text_key(raw: bytes) -> str:
    """The Z85 of a key's `RAW_KEY_BYTES` bytes."""
    return z85.encode(raw).decode("ascii")


def new_secret() -> bytes:
    """A fresh secret key, Z85."""
    return zmq.curve_keypair()[1]


def public_of(secret: bytes) -> bytes:
    """The public key, Z85, that belongs to `secret`."""
    return zmq.curve_public(secret)


def load_broker_pair(home: Home) -> CurvePair:
    """The broker's own keys.

    Raises `OperatorError`: missing, unreadable, malformed, or two halves of different pairs.
    """
    return load_pair(home.broker_public, home.broker_secret, "the broker's")


def load_client_pair(home: Home) -> CurvePair:
    """The keys of this machine as agent, client or monitor.

    Raises `OperatorError`: missing, unreadable, malformed, or two halves of different pairs.
    """
    if not is_carried(home):
        either = f"{RUN_INIT}, or `airunner certs import FILE` where the broker is on another machine"
        remedy = RUN_INIT if home.broker_secret.exists() else either
        return load_pair(home.client_public, home.client_secret, "this machine's", if_missing=remedy)
    try:
        return load_pair(home.client_public, home.client_secret, "this machine's", if_missing=IMPORT)
    except Mismatch as error:
        raise OperatorError(
            f"{home.client_public} does not belong to {home.client_secret}: run `airunner certs import --force FILE`, "
            "with what `airunner certs export` makes on the broker's machine"
        ) from error


def is_carried(home: Home) -> bool:
    """Whether the keys came from the broker's machine: `airunner certs init` makes none here."""
    return home.broker_public.exists() and not home.broker_secret.exists()


def load_broker_public(home: Home) -> bytes:
    """The key that a broker must prove to have before anything is sent to it, Z85.

    Raises `OperatorError`: missing, unreadable or malformed.
    """
    remedy = "run `airunner certs import FILE`, or `airunner certs init` if this is the broker's machine"
    what = "the broker's public key"
    return key_in(read_public(home.broker_public, what, if_missing=remedy), home.broker_public, what)


def load_pair(public_path: Path, secret_path: Path, whose: str, *, if_missing: str = RUN_INIT) -> CurvePair:
    """The pair in these two files; `whose` names it in errors.

    Raises `OperatorError`: missing, unreadable or malformed; `Mismatch`.
    """
    what = f"{whose} public key"
    secret = load_secret(secret_path, whose, if_missing=if_missing)
    public = key_in(read_public(public_path, what, if_missing=if_missing), public_path, what)
    if public != public_of(secret):
        raise Mismatch(mismatch(public_path, secret_path))
    return CurvePair(public, secret)


def load_secret(path: Path, whose: str, *, if_missing: str = RUN_INIT) -> bytes:
    """The secret key in this file, Z85; `whose` names it in errors.

    Raises `OperatorError`: missing, unreadable or malformed.
    """
    what = f"{whose} secret key"
    return key_in(read_secret(path, what, if_missing=if_missing), path, what)


def mismatch(public_path: Path, secret_path: Path) -> str:
    """What to do about two halves of different pairs."""
    return (
        f"{public_path} does not belong to {secret_path}: "
        f"move {public_path} away and run `airunner certs init`, which makes it anew from the secret key"
    )


def key_in(content: bytes, path: Path, what: str) -> bytes:
    """The key, Z85, in what stands in the file at `path`; `what` names it in errors.

    Raises `OperatorError`: it is none.
    """
    text = content.strip()
    try:
        raw_key(text)
    except ValueError as error:
        raise OperatorError(f"{what} {path} is damaged: {error}") from error
    return text
