"""A machine's keys are a true pair, or the operator hears which file is wrong."""

from __future__ import annotations

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr
from zmq.utils import z85

from airunner.certs import curve
from airunner.certs.curve import CurvePair, load_broker_pair, load_broker_public, load_client_pair, raw_key
from airunner.certs.home import Home
from airunner.certs.secretfile import replace
from airunner.protocol.errors import OperatorError


def test_a_pair_is_what_the_sockets_take(broker: Home) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        for pair in (load_broker_pair(broker), load_client_pair(broker)):
            socket.curve_publickey, socket.curve_secretkey = pair.public, pair.secret
            assert zmq.curve_public(pair.secret) == pair.public
    assert load_broker_public(broker) == load_broker_pair(broker).public
    assert curve.new_secret() != curve.new_secret()


def test_a_secret_key_shows_in_no_representation() -> None:
    pair = CurvePair(*zmq.curve_keypair())
    for shown in (repr(pair), str(pair), f"{pair}", pretty_repr(pair)):
        assert repr(pair.public) in shown
        assert pair.secret.decode() not in shown


def test_a_missing_key_says_what_to_do(home: Home) -> None:
    with pytest.raises(OperatorError, match=r"the broker's secret key .* is missing: run `airunner certs init`"):
        load_broker_pair(home)
    with pytest.raises(OperatorError, match=r"run `airunner certs import FILE`, or `airunner certs init`"):
        load_broker_public(home)


@pytest.mark.parametrize("text", [b"", b"short", b"~" * 40, b"#" * 40, b"\xff" * 40, b"0" * 41])
def test_a_damaged_key_is_named_and_not_shown(text: bytes, broker: Home) -> None:
    replace(broker.client_secret, text)
    with pytest.raises(OperatorError, match=r"this machine's secret key .* is damaged") as caught:
        load_client_pair(broker)
    assert "~~" not in str(caught.value)


@given(st.binary(min_size=32, max_size=32))
def test_every_key_survives_its_text(key: bytes) -> None:
    assert raw_key(z85.encode(key)) == key


@given(st.binary(max_size=64) | st.binary(min_size=40, max_size=40))
def test_any_other_text_is_refused_in_one_way(text: bytes) -> None:
    try:
        key = raw_key(text)
    except ValueError:
        return
    assert z85.encode(key) == text
