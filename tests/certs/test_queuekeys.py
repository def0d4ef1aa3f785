"""A secret opens for its queue's agents, as what it was sealed as, and as nothing else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PublicKey, SealedBox

from airunner.certs.curve import new_secret, public_of, raw_key
from airunner.certs.home import Home
from airunner.certs.queuekeys import (
    VALUE_BYTES_MAX,
    load_public,
    load_secret,
    make_queue_key,
    open_secret,
    public_path,
    seal_secret,
    secret_path,
)
from airunner.protocol.errors import Forged, OperatorError
from airunner.protocol.names import NAME_CHARS_MAX
from airunner.protocol.requests import BOX_BYTES_MAX

SECRET = new_secret()
PUBLIC = public_of(SECRET)


@given(value=st.binary(max_size=200))
def test_what_was_sealed_is_what_comes_out(value: bytes) -> None:
    box = seal_secret(PUBLIC, "q", "A", value)
    assert value not in box or len(value) < 3
    assert open_secret(SECRET, "q", "A", box) == value
    assert seal_secret(PUBLIC, "q", "A", value)[:32] != box[:32], "two boxes of one value have nothing in common"


@pytest.mark.parametrize(
    ("secret", "queue", "name"),
    [(SECRET, "other", "A"), (SECRET, "q", "B"), (SECRET, "q/A", ""), (new_secret(), "q", "A")],
    ids=["another queue", "another name", "both in one", "another key"],
)
def test_it_opens_under_no_other_name_and_with_no_other_key(secret: bytes, queue: str, name: str) -> None:
    with pytest.raises(Forged):
        open_secret(secret, queue, name, seal_secret(PUBLIC, "q", "A", b"value"))


@given(box=st.binary(max_size=200))
def test_no_other_bytes_open(box: bytes) -> None:
    with pytest.raises(Forged):
        open_secret(SECRET, "q", "A", box)


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_changed_box_does_not_open(at: int, flip: int) -> None:
    box = bytearray(seal_secret(PUBLIC, "q", "A", b"value"))
    box[at % len(box)] ^= flip
    if at % len(box) == 31 and flip == 0x80:
        return  # the highest bit of an X25519 key counts for nothing, RFC 7748 section 5; the nonce does not know it
    with pytest.raises(Forged):
        open_secret(SECRET, "q", "A", bytes(box))


@pytest.mark.parametrize(
    "inside",
    [b"", b"\xc1", b"\x80", b"\x81\xa5queue\xa2\xff\xff", b"\x91" * 5_000, msgspec.msgpack.encode({"queue": "q"})],
)
def test_a_well_sealed_box_of_something_else_is_told_as_one_that_does_not_open(inside: bytes) -> None:
    """Whoever has the public key can make one; it must not end an agent."""
    box = SealedBox(PublicKey(raw_key(PUBLIC))).encrypt(inside)
    with pytest.raises(Forged):
        open_secret(SECRET, "q", "A", box)


def test_the_longest_value_with_the_longest_names_fits_a_message_and_one_more_byte_is_refused() -> None:
    queue, name = "q" * NAME_CHARS_MAX, "A" * NAME_CHARS_MAX
    assert len(seal_secret(PUBLIC, queue, name, bytes(VALUE_BYTES_MAX))) <= BOX_BYTES_MAX
    with pytest.raises(OperatorError, match="at most 32768 bytes, and this one has 32769"):
        seal_secret(PUBLIC, queue, name, bytes(VALUE_BYTES_MAX + 1))


def test_the_keys_are_a_pair_and_what_is_there_stays(home: Home) -> None:
    assert make_queue_key(home, "q")
    before = load_secret(home, "q")
    assert public_of(before) == load_public(public_path(home, "q"), "q")
    assert not make_queue_key(home, "q")
    public_path(home, "q").unlink()
    assert make_queue_key(home, "q")
    assert load_secret(home, "q") == before


def test_halves_that_are_missing_or_no_pair_are_told_and_not_replaced(home: Home) -> None:
    make_queue_key(home, "q")
    public_path(home, "q").write_bytes(PUBLIC + b"\n")
    with pytest.raises(OperatorError, match="does not belong to"):
        make_queue_key(home, "q")
    secret_path(home, "q").write_bytes(b"no key")
    with pytest.raises(OperatorError, match="is damaged: a key has 40 characters, not 6"):
        load_secret(home, "q")
    secret_path(home, "q").unlink()
    with pytest.raises(OperatorError, match="put the secret key back, or move"):
        make_queue_key(home, "q")
    public_path(home, "q").unlink()
    with pytest.raises(OperatorError, match="run `airunner certs queue-key q` where the queue's agents run"):
        load_public(public_path(home, "q"), "q")
    with pytest.raises(OperatorError, match="copy it from another of the queue's agents"):
        load_secret(home, "q")
