"""An error is the same class at both ends of the wire."""

from __future__ import annotations

import pytest

from airunner.protocol.errors import EXIT_USAGE, OperatorError, PeerError


@pytest.mark.parametrize("code", PeerError.codes())
def test_an_error_crosses_the_wire_as_itself(code: str):
    kind = PeerError.codes()[code]
    assert kind.code == code
    assert kind().message
    error = PeerError.from_wire(code, "why", 3)
    assert (type(error), error.message, error.expected_index) == (kind, "why", 3)


def test_a_code_from_a_newer_peer_is_still_an_error():
    error = PeerError.from_wire("from-the-future", "why")
    assert (type(error), str(error)) == (PeerError, "why")


def test_two_errors_cannot_share_a_code():
    with pytest.raises(AssertionError, match="share"):
        type("Twice", (PeerError,), {"code": "busy"})


def test_an_operators_error_says_how_to_exit():
    assert OperatorError("mend it").exit_code == EXIT_USAGE
    assert OperatorError("mend it", exit_code=69).exit_code == 69
