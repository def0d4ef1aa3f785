"""Relay process: owns the XPUB socket and its Gatekeeper, and sends the broker's live events to subscribers.

In a fleet it exchanges live events with the relays of the other brokers, and passes on their hints (see `exchange`).

It has the broker's key, for handshakes, but no job's key: the messages are sealed already. All buffers that subscribers
can fill are in this process, whose memory is limited (RLIMIT_DATA): beyond the limit it dies, and the broker starts
another. It ends when the broker closes its end of the socket pair; when the broker dies, the kernel sends it SIGKILL.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import msgspec
from msgspec import Struct

from airunner.broker.counts import Counts
from airunner.broker.gatekeeper import Gatekeeper
from airunner.broker.rates import Rates
from airunner.broker.relay.exchange import Exchange
from airunner.broker.relay.line import (
    PEERS_PACKET,
    REPLAY_PACKET,
    PacketSocket,
    Peers,
    Report,
    peer_report,
    unpacked,
)
from airunner.broker.relay.listeners import IsPeer, Listeners
from airunner.certs.allowlist import AllowList, AllowListUnreadable, PeerRole
from airunner.certs.curve import CurvePair, load_broker_pair
from airunner.certs.home import Home
from airunner.protocol.errors import OperatorError
from airunner.transport.bell import Bell
from airunner.transport.ports import Ending
from airunner.transport.sockets import CurveNetwork, CurvePublisher, bind_gatekeeper, open_context

COUNTS_S: Final = 0.1  # seconds between two reports of counters to the broker
_PR_SET_PDEATHSIG: Final = 1


class Settings(Struct, frozen=True):
    """Settings from the broker: the descriptor of this end of the socket pair, the endpoint to bind, and bounds."""

    descriptor: int
    broker: int  # the broker's process id
    home: str
    endpoint: str
    connections_per_s: float
    connections_burst_s: float
    memory_bytes_max: int


class ReportedCounts(Counts):
    """Counters that are reported to the broker, which adds them to its own."""

    def __init__(self) -> None:
        super().__init__()
        self._more: dict[str, int] = {}
        self._counted = Bell()

    def add(self, name: str, more: int = 1) -> None:
        """Count `more` of `name`."""
        self._more[name] = self._more.get(name, 0) + more
        self._counted.ring()

    async def next_counts(self) -> dict[str, int]:
        """Wait until something is counted; return what was counted since the last call."""
        while not self._more:
            await self._counted.wait()
        more, self._more = self._more, {}
        return more


def main(settings_json: str) -> None:
    """Relay until the broker closes the socket."""
    settings = msgspec.json.decode(settings_json, type=Settings)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != settings.broker:
        return
    for bound, value in ((resource.RLIMIT_DATA, settings.memory_bytes_max), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(bound, (value, value))
    anyio.run(_run, settings)


async def _run(settings: Settings) -> None:
    broker = PacketSocket(socket.socket(fileno=settings.descriptor))
    home = Home(Path(settings.home))
    counts = ReportedCounts()
    with open_context() as context:
        allowed = AllowList(home.allowed_clients, lambda _: None)  # the broker reports faults of the same file
        rates = Rates(settings.connections_per_s, settings.connections_burst_s)
        gatekeeper = Gatekeeper(bind_gatekeeper(context), allowed, counts, rates)
        async with anyio.create_task_group() as group:
            group.start_soon(gatekeeper.run)
            try:
                pair = load_broker_pair(home)
                publisher = CurvePublisher(context, pair, settings.endpoint)
            except OperatorError as error:
                await broker.report(Report(failure=error.message, exit_code=error.exit_code))
            else:
                await broker.report(Report(endpoint=publisher.endpoint))
                network = CurveNetwork(context, pair, pair.public)
                listeners = Listeners(_peers_of(allowed, pair))
                exchange = Exchange(publisher, network.peer, listeners, random.random, _reporter(broker))
                group.start_soon(exchange.run)
                group.start_soon(_report_listeners, exchange, broker)
                group.start_soon(_report_counts, counts, broker)
                await _obey(broker, exchange, counts)
            group.cancel_scope.cancel()


async def _obey(broker: PacketSocket, exchange: Exchange, counts: Counts) -> None:
    """Publish what the broker sends, and connect to the peers that it names, until it closes its end."""

    def hear(sealed: bytes) -> None:
        if not broker.send(msgspec.msgpack.encode(Report(hint=sealed))):
            counts.add("hints_dropped")  # its number shows the broker that it has missed one

    def accept(packet: bytes) -> None:
        if packet[0] < PEERS_PACKET[0]:
            exchange.publish(unpacked(packet))
        elif packet.startswith(PEERS_PACKET):
            peers = msgspec.msgpack.decode(packet[len(PEERS_PACKET) :], type=Peers)
            exchange.join(peers.hint_topic, hear)
            exchange.set_peers(peers.endpoints)
        else:
            assert packet == REPLAY_PACKET, "unknown packet"
            exchange.replay_all()

    await broker.read(accept)


def _peers_of(allowed: AllowList, pair: CurvePair) -> IsPeer:
    """Return the check whether a connected key is a peer's; while the list cannot be read, the fleet's own key is."""

    def is_peer(key: str) -> bool:
        try:
            entry = allowed.entry_for(key.encode())
        except AllowListUnreadable:
            return key.encode() == pair.public
        return entry is not None and PeerRole.BROKER in entry.roles

    return is_peer


def _reporter(broker: PacketSocket) -> Callable[[str, Ending | None], None]:
    """Return the function that reports how the connection to a peer is; without room, the next change is reported."""

    def report(endpoint: str, ending: Ending | None) -> None:
        broker.send(msgspec.msgpack.encode(peer_report(endpoint, ending)))

    return report


async def _report_listeners(exchange: Exchange, broker: PacketSocket) -> None:
    while True:
        await broker.report(Report(changes=tuple(await exchange.subscriptions())))


async def _report_counts(counts: ReportedCounts, broker: PacketSocket) -> None:
    while True:
        await broker.report(Report(counts=await counts.next_counts()))
        await anyio.sleep(COUNTS_S)
