"""Queue keys for sealed secrets: anyone with the public key can seal a value, only the queue's agents can open it.

A queue's keys are an X25519 pair like the CURVE keys, and stored like them; `airunner certs queue-key` makes the pair.
Only the queue's agents need the secret key; the broker uses neither key. A box is a NaCl sealed box (an ephemeral
X25519 key, XSalsa20-Poly1305) around the value, its queue and its name, so that a box opens under no other name.
A box does not prove who made it: anyone with the public key can seal another value.

Source: https://doc.libsodium.org/public-key_cryptography/sealed_boxes
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Struct
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from airunner.certs.curve import key_in, load_pair, raw_key
from airunner.certs.home import Home
from airunner.certs.init import complete_curve
from airunner.certs.ownership import refuse_foreign_owner
from airunner.certs.secretfile import locked, make_folder, read_public, read_secret
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import Forged, OperatorError
from airunner.protocol.requests import BOX_BYTES_MAX

VALUE_BYTES_MAX: Final = 32_768  # bytes of one secret's value


class _Sealed(Struct, frozen=True):
    queue: str
    name: str
    value: bytes


def public_path(home: Home, queue: str) -> Path:
    """Return the path of the public key, for users who set secrets."""
    return home.queue_keys / f"{quote(queue, safe='')}.public"


def secret_path(home: Home, queue: str) -> Path:
    """Return the path of the secret key, for the queue's agents."""
    return home.queue_keys / f"{quote(queue, safe='')}.secret"


def make_queue_key(home: Home, queue: str) -> bool:
    """Make the key pair of `queue`, or its missing public key; return whether it made any. Raises `OperatorError`."""
    refuse_foreign_owner(home.root, home.certs, home.queue_keys)
    make_folder(home.queue_keys)
    secret, public = secret_path(home, queue), public_path(home, queue)
    with locked(home.queue_keys):
        made = complete_curve(secret, public, f"queue {queue}'s")  # existing keys stay unchanged
        load_pair(public, secret, f"queue {queue}'s", if_mismatched="move the public key away and run this again")
    return bool(made)


def load_public(path: Path, queue: str) -> bytes:
    """Load the public key of `queue` from the file at `path`, Z85; raises `OperatorError`."""
    what = f"queue {queue}'s public key"
    remedy = f"run `airunner certs queue-key {queue}` where the queue's agents run, and copy {queue}.public from there"
    return key_in(read_public(path, what, if_missing=remedy), path, what)


def load_secret(home: Home, queue: str) -> bytes:
    """Load the secret key of `queue`, Z85; raises `OperatorError`."""
    path = secret_path(home, queue)
    what = f"queue {queue}'s secret key"
    remedy = "copy it from another of the queue's agents, or make the first with `airunner certs queue-key`"
    return key_in(read_secret(path, what, if_missing=remedy), path, what)


def seal_secret(public: bytes, queue: str, name: str, value: bytes) -> bytes:
    """Seal `value` in a box that opens only as the secret `name` of `queue`.

    Raises `OperatorError`: the value has more than `VALUE_BYTES_MAX` bytes.
    """
    if len(value) > VALUE_BYTES_MAX:
        raise OperatorError(f"a secret may have at most {VALUE_BYTES_MAX} bytes, and this one has {len(value)}")
    inside = msgspec.msgpack.encode(_Sealed(queue, name, value))
    box = SealedBox(PublicKey(raw_key(public))).encrypt(inside)
    assert len(box) <= BOX_BYTES_MAX, "the names are longer than names may be"
    return box


def open_secret(secret: bytes, queue: str, name: str, box: bytes) -> bytes:
    """Open the box and return its value. Raises `Forged`: sealed for another key, queue or name, or changed since."""
    try:
        inside = msgspec.msgpack.decode(SealedBox(PrivateKey(raw_key(secret))).decrypt(box), type=_Sealed)
    except (CryptoError, *UNDECODABLE) as error:
        raise Forged from error
    if (inside.queue, inside.name) != (queue, name):
        raise Forged(f"it was sealed as {inside.name} of queue {inside.queue}")
    return inside.value
