"""Peer list of the relay: which other brokers to connect to, and why to one it cannot, for /health."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from airunner.broker.health import Health
from airunner.broker.relay.line import PEERS_PACKET, Peers, PeerState
from airunner.transport.ports import Ending

CONDITION: Final = "peers"  # name of the condition in /health
PEERS_MAX: Final = 16  # peers to connect to: their endpoints fit into a packet, and their messages into memory
ENDPOINT_CHARS_MAX: Final = 300  # of a peer's endpoint: the name of a host has 253 characters
MISMATCHES_MIN: Final = 3  # failed handshakes in a row until another key is likely: a peer that ends causes one
_FAILED: Final = (Ending.MISMATCHED.name, Ending.FORGED.name)  # names of failed handshakes
_ADVICE: Final = {
    Ending.REFUSED.name: "refuses this broker's key: list it there with `airunner certs add NAME --role broker`",
    Ending.FORGED.name: "has another key than this broker: a fleet has one, see `airunner certs export`",
    Ending.MISMATCHED.name: "aborts the handshake: what forwards to it does not reach it, or it is no broker",
    Ending.UNRESOLVED.name: "cannot be found by its name: check --advertise there, and this machine's name service",
}


class PeerList:
    """List of the peers of a broker whose hints have the topic `hint_topic`."""

    def __init__(self, hint_topic: bytes) -> None:
        self._hint_topic = hint_topic
        self._endpoints: tuple[str, ...] = ()
        self._left_out = ""  # why some are not connected to
        self._refused: dict[str, str] = {}  # by endpoint: why a peer cannot be connected to
        self._connected: set[str] = set()  # endpoints
        self._mismatches: Counter[str] = Counter()  # by endpoint: failed handshakes in a row

    @property
    def parted(self) -> bool:
        """Whether one of them is not connected."""
        return bool(self._left_out) or not self._connected.issuperset(self._endpoints)

    def packet(self) -> bytes:
        """Return the packet that names the peers to the relay process."""
        return PEERS_PACKET + msgspec.msgpack.encode(Peers(self._endpoints, self._hint_topic))

    def set(self, endpoints: Sequence[str]) -> bool:
        """Set the peers, of which the first `PEERS_MAX` are taken; return whether they have changed."""
        known = [endpoint for endpoint in endpoints if len(endpoint) <= ENDPOINT_CHARS_MAX][:PEERS_MAX]
        changed = tuple(known) != self._endpoints
        self._endpoints = tuple(known)
        self._connected.intersection_update(known)
        self._refused = {endpoint: why for endpoint, why in self._refused.items() if endpoint in known}
        for gone in self._mismatches.keys() - set(known):
            del self._mismatches[gone]
        more = len(endpoints) - len(known)
        self._left_out = f"only {len(known)} of {len(endpoints)} other brokers are connected to" if more else ""
        return changed

    def note(self, peer: PeerState) -> None:
        """Note how the connection to a peer is; that a peer is gone, the broker knows from the store."""
        (self._connected.add if peer.ending is None else self._connected.discard)(peer.endpoint)
        self._refused.pop(peer.endpoint, None)
        if peer.ending not in _FAILED:
            del self._mismatches[peer.endpoint]
        else:
            self._mismatches[peer.endpoint] += 1
            if self._mismatches[peer.endpoint] < MISMATCHES_MIN:
                return
        if peer.endpoint in self._endpoints and (advice := _ADVICE.get(peer.ending or "")) is not None:
            self._refused[peer.endpoint] = f"the broker at {peer.endpoint} {advice}"

    def report(self, health: Health) -> None:
        """Report in /health what is wrong with peers."""
        if words := "; ".join(filter(None, (self._left_out, *self._refused.values()))):
            health.degrade(CONDITION, words)
        else:
            health.clear(CONDITION)
