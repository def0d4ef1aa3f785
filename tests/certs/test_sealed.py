"""What is sealed opens with its watch key, and with nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.certs.sealed import NONCE_BYTES, SEAL_BYTES, open_sealed, seal, topic_of
from airunner.protocol.errors import Forged
from airunner.protocol.frames import SUBSCRIPTION_BYTES_MAX, TOPIC_BYTES

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
NONCE = bytes(NONCE_BYTES)

watch_keys = st.binary(min_size=32, max_size=32)
nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)


@given(watch_keys, st.binary(), nonces)
def test_a_payload_comes_out_as_it_went_in(key: bytes, payload: bytes, nonce: bytes) -> None:
    sealed = seal(key, payload, nonce)
    assert open_sealed(key, sealed) == payload
    assert len(sealed) == len(payload) + SEAL_BYTES


@given(st.data())
def test_every_flipped_bit_is_noticed(data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, b"payload", NONCE))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Forged):
        open_sealed(KEY, bytes(sealed))


@given(st.binary(max_size=128))
def test_no_bytes_of_somebody_else_open_and_none_that_are_cut_short(forged: bytes) -> None:
    for sealed in (forged, seal(OTHER_KEY, b"payload", NONCE), seal(KEY, b"", NONCE)[:-1]):
        with pytest.raises(Forged):
            open_sealed(KEY, sealed)


def test_the_nonce_decides_the_ciphertext() -> None:
    assert seal(KEY, b"payload", NONCE)[NONCE_BYTES:] != seal(KEY, b"payload", b"\1" * NONCE_BYTES)[NONCE_BYTES:]


def test_a_topic_fits_a_subscription_is_the_same_in_every_version_and_does_not_show_its_key() -> None:
    """Subscribers compute it in other languages: BLAKE2b, key = the watch key, personal = "airunner topic"."""
    topic = topic_of(KEY)
    assert topic.hex() == "d4e168f526ba96b8b774d70296a76cf9"
    assert len(topic) == TOPIC_BYTES <= SUBSCRIPTION_BYTES_MAX
    assert topic != topic_of(OTHER_KEY)
    assert topic not in KEY
