"""CurvePeer: a broker's connection to the live events of another broker of its fleet.

It tries to connect once, as a dealer does, so the relay sees why a peer cannot be reached: a peer that refuses the key
would not be tried again by libzmq, and a peer's name is looked up again for each connection.
"""

from __future__ import annotations

from typing import Final

import zmq

from airunner.transport.dealer import CurveDealer

PEER_BYTES_MAX: Final = 8_192  # of a message from a peer: a live segment takes 2 KiB and its seal, a hint up to 4 KiB
PEER_MESSAGES_MAX: Final = 1_024  # messages of a peer that wait to be read: it publishes for all listeners here


class CurvePeer(CurveDealer):
    """SUB socket of one connection; see `ports.Peer`."""

    def subscribe(self, topic: bytes) -> None:
        """Subscribe to `topic`."""
        self._socket.set_option(zmq.SUBSCRIBE, topic)

    def unsubscribe(self, topic: bytes) -> None:
        """End the subscription to `topic`."""
        self._socket.set_option(zmq.UNSUBSCRIBE, topic)
