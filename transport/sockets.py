"""CURVE sockets under anyio: the only place where a ZeroMQ socket is made, so that none is without keys.

Behaviour of libzmq that was measured, and what follows from it
- `ZAP_ENFORCE_DOMAIN` is set, with a non-empty domain, on every server socket: otherwise a missing Gatekeeper admits
  every machine.
- ZMTP heartbeats stay off: they can abort a connecting process and make a busy ROUTER lose requests.
- With `RECONNECT_IVL` -1 a connecting socket tries once, and its monitor reports the result within a millisecond. The
  Lazy Pirate decides when to try again.
- The monitor reports a connection's descriptor when it is made. libzmq owns it: it is only asked for its counts, and
  not duplicated, because a duplicate would keep the connection open.
- Routing ids are drawn with libc's `rand()`, which libzmq never seeds.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Final

import anyio.lowlevel
import zmq
from zmq.utils.monitor import parse_monitor_message

from airunner.certs.curve import CurvePair
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError
from airunner.protocol.frames import BODY_BYTES_MAX, FRAMES_MAX, SUBSCRIPTION_BYTES_MAX
from airunner.protocol.names import PORT_MAX
from airunner.transport.anyiosocket import AnyioSocket
from airunner.transport.ports import (
    DRAIN_MESSAGES_MAX,
    DRAIN_REQUESTS_MAX,
    EVENTS_MESSAGES_MAX,
    QUEUE_MESSAGES_MAX,
    REPLIES_MAX,
    Ending,
    Frames,
    Incoming,
    Sent,
    Subscription,
)
from airunner.transport.tcpinfo import tcp_info

ZAP_DOMAIN: Final = b"airunner"
ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"  # RFC 27, https://rfc.zeromq.org/spec/27/
ZAP_FRAMES_MAX: Final = 16  # an envelope, six fields and the mechanism's credentials
SURPLUS_FRAMES_MAX: Final = 64  # of a message with too many, dropped at once before other tasks get their turn
EVENTS_KERNEL_BYTES: Final = 131_072  # in each kernel buffer of a connection, which would otherwise grow to some 6 MiB
CURVE_BYTES: Final = 33  # added to each frame (RFC 26: name, nonce, MAC, flags); libzmq's bound includes them
HANDSHAKE_MS: Final = 5_000
KEEPALIVE_IDLE_S: Final = 30
KEEPALIVE_INTERVAL_S: Final = 10
KEEPALIVE_PROBES: Final = 3

_ENDINGS: Final = zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED
_BROKEN: Final = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_REFUSED: Final = zmq.EVENT_HANDSHAKE_FAILED_AUTH
_MADE: Final = zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """Make a context whose automatic routing ids cannot be predicted."""
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))
    return zmq.Context()


class CurveDealer:
    """DEALER socket to one broker; see `ports.Dealer`."""

    def __init__(self, raw: zmq.Socket[bytes], endpoint: str) -> None:
        raw.reconnect_ivl = -1
        monitor = raw.get_monitor_socket(_MADE | _ENDINGS | _BROKEN | _REFUSED)
        self._descriptor = -1
        self._trusted = False  # the handshake has proved that the other end is the broker
        self._carried_bytes = 0
        self._socket = AnyioSocket(raw)
        self._monitor = AnyioSocket(monitor)
        raw.connect(endpoint)

    def send(self, frames: Sequence[bytes]) -> bool:
        try:
            self._socket.send(frames)
        except zmq.Again:
            return False
        return True

    async def receive(self) -> list[Frames]:
        return await self._socket.receive()

    async def ended(self) -> Ending:
        ending = Ending.DROPPED
        while True:
            for frames in await self._monitor.receive():
                message = parse_monitor_message(frames)
                happened = message["event"]
                if happened == zmq.EVENT_CONNECTED:
                    self._descriptor = message["value"]
                elif happened == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    self._trusted = True
                elif happened & _REFUSED:
                    ending = Ending.REFUSED
                elif happened & _BROKEN:
                    ending = Ending.MISMATCHED
                elif happened & _ENDINGS:
                    self._trusted = False  # the descriptor may be another's by now
                    return ending

    def progress(self) -> int:
        """Return the bytes known to have moved since the broker's handshake."""
        found = tcp_info(self._descriptor) if self._trusted else None
        if found is None:
            return 0
        if found.outstanding:
            self._carried_bytes = found.acked_bytes
        return found.received_bytes + self._carried_bytes

    def close(self) -> None:
        if not self._socket.raw.closed:
            self._socket.raw.disable_monitor()
            self._monitor.close()
            self._socket.close()


class CurveSubscriber:
    """SUB socket; see `ports.Subscriber`."""

    def __init__(self, raw: zmq.Socket[bytes], endpoint: str) -> None:
        raw.rcvhwm = EVENTS_MESSAGES_MAX
        raw.rcvbuf = EVENTS_KERNEL_BYTES
        self._socket = AnyioSocket(raw)
        raw.connect(endpoint)

    def subscribe(self, topic: bytes) -> None:
        self._socket.set_option(zmq.SUBSCRIBE, topic)

    def unsubscribe(self, topic: bytes) -> None:
        self._socket.set_option(zmq.UNSUBSCRIBE, topic)

    async def receive(self) -> list[Frames]:
        return await self._socket.receive()

    def close(self) -> None:
        self._socket.close()


class CurveNetwork:
    """Network of one key pair, to brokers of one pinned key."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], pair: CurvePair, broker_public: bytes) -> None:
        self._context = context
        self._pair = pair
        self._broker_public = broker_public

    def dealer(self, endpoint: str) -> CurveDealer:
        _checked(endpoint)  # before the socket is made, which would stay open
        return CurveDealer(self._raw(zmq.DEALER), endpoint)

    def subscriber(self, endpoint: str) -> CurveSubscriber:
        _checked(endpoint)
        return CurveSubscriber(self._raw(zmq.SUB), endpoint)

    def _raw(self, kind: int) -> zmq.Socket[bytes]:
        raw = _bounded(self._context.socket(kind), BODY_BYTES_MAX)
        raw.curve_serverkey = self._broker_public
        raw.curve_publickey = self._pair.public
        raw.curve_secretkey = self._pair.secret
        return raw


class CurveRouter:
    """ROUTER socket; see `ports.Router`."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], pair: CurvePair, endpoint: str) -> None:
        raw = _server(context.socket(zmq.ROUTER), pair, BODY_BYTES_MAX)
        raw.router_mandatory = True
        raw.sndhwm = REPLIES_MAX
        self._socket = AnyioSocket(raw)
        self.endpoint = _bind(raw, endpoint)

    async def receive(self) -> list[Incoming]:
        await self._socket.readable()
        batch: list[Incoming] = []
        while len(batch) < DRAIN_REQUESTS_MAX and (not batch or self._socket.has_message()):
            batch.append(self._receive_begin())
            while not self._receive_rest():
                await anyio.lowlevel.checkpoint()
        return batch

    def send(self, peer: bytes, frames: Sequence[bytes]) -> Sent:
        try:
            self._socket.send([peer, *frames])
        except zmq.Again:
            return Sent.FULL
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return Sent.GONE
        return Sent.DONE

    def close(self) -> None:
        self._socket.close()

    def _receive_begin(self) -> Incoming:
        """Receive a message up to the bound of its frames; one more frame shows that there are too many."""
        raw = self._socket.raw
        peer = raw.recv(zmq.NOBLOCK, copy=False)
        frames: Frames = []
        while len(frames) <= FRAMES_MAX and raw.getsockopt(zmq.RCVMORE):
            frames.append(raw.recv(zmq.NOBLOCK))
        key = peer.get("User-Id")
        assert isinstance(key, str), "the Gatekeeper sets the key of every peer"
        return Incoming(peer.bytes, key, frames)

    def _receive_rest(self) -> bool:
        """Drop some of the surplus frames; return whether none is left."""
        raw = self._socket.raw
        for _ in range(SURPLUS_FRAMES_MAX):
            if not raw.getsockopt(zmq.RCVMORE):
                return True
            raw.recv(zmq.NOBLOCK)
        return False


class CurvePublisher:
    """XPUB socket of live events; see `ports.Publisher`. An XPUB reports subscriptions.

    Subscriptions are received frame by frame: libzmq delivers each one by itself, and not always with the frames that
    it announces.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], pair: CurvePair, endpoint: str) -> None:
        raw = _server(context.socket(zmq.XPUB), pair, SUBSCRIPTION_BYTES_MAX)
        raw.sndhwm = EVENTS_MESSAGES_MAX
        raw.sndbuf = EVENTS_KERNEL_BYTES
        raw.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._socket = AnyioSocket(raw)
        self.endpoint = _bind(raw, endpoint)

    def publish(self, frames: Sequence[bytes]) -> None:
        self._socket.send(frames)

    async def subscriptions(self) -> list[Subscription]:
        while True:
            await self._socket.readable()
            changes: list[Subscription] = []
            for _ in range(DRAIN_MESSAGES_MAX):
                if not self._socket.has_message():
                    break
                frame = self._socket.raw.recv(zmq.NOBLOCK, copy=False)
                if frame.bytes[:1] in (b"\0", b"\1"):
                    changes.append(Subscription(frame.bytes[1:], frame.bytes[0] == 1, _machine(frame)))
            if changes:
                return changes

    def close(self) -> None:
        self._socket.close()


def _machine(frame: zmq.Frame) -> str | None:
    """Return the key of the peer that sent the frame; None: libzmq made it, for a connection that has ended."""
    try:
        key = frame.get("User-Id")
    except zmq.ZMQError:
        return None
    assert isinstance(key, str), "the Gatekeeper sets the key of every peer"
    return key


def bind_gatekeeper(context: zmq.Context[zmq.Socket[bytes]]) -> AnyioSocket:
    """Bind the ZAP socket, which libzmq asks about every peer; it is bound before any other socket."""
    raw = context.socket(zmq.ROUTER)  # replies to many at once; a REP would take them one by one
    raw.linger = 0
    raw.bind(ZAP_ENDPOINT)
    return AnyioSocket(raw, ZAP_FRAMES_MAX)


def _bounded(raw: zmq.Socket[bytes], frame_bytes_max: int) -> zmq.Socket[bytes]:
    raw.linger = 0
    raw.sndhwm = raw.rcvhwm = QUEUE_MESSAGES_MAX
    raw.maxmsgsize = frame_bytes_max + CURVE_BYTES
    raw.handshake_ivl = HANDSHAKE_MS
    raw.tcp_keepalive = 1
    raw.tcp_keepalive_idle = KEEPALIVE_IDLE_S
    raw.tcp_keepalive_intvl = KEEPALIVE_INTERVAL_S
    raw.tcp_keepalive_cnt = KEEPALIVE_PROBES
    return raw


def _server(raw: zmq.Socket[bytes], pair: CurvePair, frame_bytes_max: int) -> zmq.Socket[bytes]:
    _bounded(raw, frame_bytes_max)
    raw.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    raw.zap_domain = ZAP_DOMAIN
    raw.curve_server = True
    raw.curve_publickey = pair.public
    raw.curve_secretkey = pair.secret
    return raw


def _bind(raw: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind the socket and return its endpoint, with the real port instead of port 0."""
    try:
        raw.bind(_checked(endpoint).replace(":0", ":*") if endpoint.endswith(":0") else _checked(endpoint))
    except zmq.ZMQError as error:
        raw.close(linger=0)
        raise OperatorError(
            f"cannot listen on {endpoint}: {error.strerror}; is another broker running there?",
            exit_code=EXIT_UNAVAILABLE,
        ) from error
    bound = raw.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    return bound.rstrip(b"\0").decode()


def _checked(endpoint: str) -> str:
    """Check that `endpoint` has the form tcp://HOST:PORT. Raises `OperatorError`."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not endpoint.startswith("tcp://") or not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise OperatorError(f"{endpoint!r} is not an endpoint; write tcp://HOST:PORT")
    return endpoint
