"""Sealed live events: any connected machine can receive them, but only the watch key of a job opens its events.

A sealed payload is `nonce (24 bytes) ‖ SecretBox(watch key)`: XSalsa20-Poly1305, so a reader who can open it knows
that a holder of the watch key made it. The topic is a hash of the watch key: holders of the key can subscribe to it,
and other subscribers learn nothing from it.

A change stream of a tenant's jobs is sealed in the same way, with a key derived from the broker's own secret key.

Names of workspaces that all agents of a tenant give, and no job of another tenant can guess, are made with such a key.

The brokers of a fleet seal their hints to one another in the same way, with a key derived from the key that they share.

The broker makes a fresh random nonce for each payload; with 192 bits, repeats do not happen.

Source: https://nacl.cr.yp.to/secretbox.html
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from airunner.certs.curve import raw_key
from airunner.protocol.errors import Forged
from airunner.protocol.frames import TOPIC_BYTES

NONCE_BYTES: Final = SecretBox.NONCE_SIZE
SEAL_BYTES: Final = SecretBox.NONCE_SIZE + SecretBox.MACBYTES
"""Bytes by which sealing makes a payload longer."""
WORKSPACE_KEY_BYTES: Final = 16


def topic_of(watch_key: bytes) -> bytes:
    """Return the topic, `TOPIC_BYTES` long, under which the events of this key's job are published."""
    return blake2b(key=watch_key, digest_size=TOPIC_BYTES, person=b"airunner topic").digest()


def hint_key(fleet_secret: bytes) -> bytes:
    """Derive the key for hints from the fleet's secret key (Z85); their topic is the `topic_of` it."""
    return blake2b(key=raw_key(fleet_secret), digest_size=SecretBox.KEY_SIZE, person=b"airunner hints").digest()


def change_secret(broker_secret: bytes) -> bytes:
    """Derive the secret of all change streams from the broker's secret key (Z85), which a fleet's brokers share."""
    return blake2b(key=raw_key(broker_secret), digest_size=SecretBox.KEY_SIZE, person=b"airunner changes").digest()


def change_key(secret: bytes, stream: bytes) -> bytes:
    """Derive the watch key of a change stream, which `stream` names."""
    return blake2b(stream, key=secret, digest_size=SecretBox.KEY_SIZE, person=b"airunner stream").digest()


def workspace_key(secret: bytes, tenant: str) -> bytes:
    """Derive the key from which a tenant's agents make names of workspaces, from a secret of the brokers.

    If that is empty, so is the key.
    """
    if not secret:
        return b""
    person = b"airunner places"
    return blake2b(tenant.encode(), key=secret, digest_size=WORKSPACE_KEY_BYTES, person=person).digest()


def seal(watch_key: bytes, payload: bytes, nonce: bytes) -> bytes:
    """Seal `payload` for holders of `watch_key`; `nonce` is `NONCE_BYTES` that were never used with this key."""
    # A SecretBox takes 0.2 µs to make and 3 µs to use: a cache of them would save nothing.
    return SecretBox(watch_key).encrypt(payload, nonce)


def open_sealed(watch_key: bytes, sealed: bytes) -> bytes:
    """Open a sealed payload. Raises `Forged`: it was made with another key, changed in transit, or truncated."""
    if len(sealed) < SEAL_BYTES:
        raise Forged(f"a sealed payload has at least {SEAL_BYTES} bytes, not {len(sealed)}")
    try:
        return SecretBox(watch_key).decrypt(sealed)
    except CryptoError as error:
        raise Forged from error
