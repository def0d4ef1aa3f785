"""CURVE sockets under anyio: the only place where ZeroMQ sockets are made, so that no TCP socket is without keys.

Behaviour of libzmq that was measured, and what follows from it
- `ZAP_ENFORCE_DOMAIN` is set, with a non-empty domain, on every server socket: otherwise every machine is admitted
  while the Gatekeeper, the broker's ZAP server, does not run.
- ZMTP heartbeats stay off: they can abort a connecting process and make a busy ROUTER lose requests.
- Routing ids are drawn with libc's `rand()`, which libzmq never seeds: `new_context` seeds it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import zmq

from airunner.certs.curve import CurvePair
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError
from airunner.protocol.frames import BODY_BYTES_MAX, FRAMES_MAX, SUBSCRIPTION_BYTES_MAX
from airunner.transport.anyiosocket import NOBLOCK, NOT_LAST, AnyioSocket, has_message, send_frame
from airunner.transport.dealer import CurveDealer, connect
from airunner.transport.endpoints import Address, split_endpoint
from airunner.transport.peer import PEER_BYTES_MAX, PEER_MESSAGES_MAX, CurvePeer
from airunner.transport.ports import (
    DRAIN_MESSAGES_MAX,
    EVENTS_MESSAGES_MAX,
    QUEUE_MESSAGES_MAX,
    REPLIES_MAX,
    Accept,
    Frames,
    Incoming,
    Sent,
    Subscription,
)
from airunner.transport.reader import DescriptorReader
from airunner.transport.resolver import Resolver, only_ipv6

ZAP_DOMAIN: Final = b"airunner"
ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"  # RFC 27, https://rfc.zeromq.org/spec/27/
ZAP_FRAMES_MAX: Final = 16  # frames of a ZAP request: an envelope, six fields and the mechanism's credentials
DRAIN_S: Final = 0.0005  # seconds for which the broker receives requests (some 25) before other tasks get a turn
SURPLUS_FRAMES_MAX: Final = 64  # frames beyond the bound that are dropped before other tasks get a turn
EVENTS_KERNEL_BYTES: Final = 131_072  # kernel buffer of a connection for live events; by default it grows to some 6 MiB
CURVE_BYTES: Final = 33  # added by CURVE to a frame (RFC 26: name, nonce, MAC, flags); libzmq's bound includes them
HANDSHAKE_MS: Final = 5_000  # after which an unfinished CURVE handshake ends the connection
BACKLOG: Final = 1_024  # connections that wait to be accepted; beyond, a peer's kernel tries again after a second
KEEPALIVE_IDLE_S: Final = 30  # of silence before the first TCP keepalive probe of a server
KEEPALIVE_INTERVAL_S: Final = 10  # between two of its probes
KEEPALIVE_PROBES: Final = 3  # unanswered probes that end the connection
# Of a client or an agent: while it is idle it sends no message, and yet it notices within 10 s that a machine has died.
NOTICE_IDLE_S: Final = 4  # of silence before the first probe
NOTICE_INTERVAL_S: Final = 2  # between two probes

_BIND_ADVICE: Final = {
    errno.EADDRINUSE: "is another broker running there?",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    errno.ENODEV: "it is neither an address or name of this machine nor one of its interfaces",
    errno.EACCES: "ports below 1024 need root",
}


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """Make a context whose automatic routing ids cannot be predicted."""
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))
    return zmq.Context()


@contextmanager
def open_context() -> Generator[zmq.Context[zmq.Socket[bytes]]]:
    """Make a context for this block, and close all its sockets at the end, however that comes about.

    The garbage collector must not do it: it may end the context first, which then waits for its sockets for ever.
    """
    context = new_context()
    try:
        yield context
    finally:
        context.destroy(linger=0)


class CurveSubscriber:
    """SUB socket; see `ports.Subscriber`."""

    def __init__(self, raw: zmq.Socket[bytes], address: Address, *, ipv6: bool) -> None:
        raw.rcvhwm = EVENTS_MESSAGES_MAX
        raw.rcvbuf = EVENTS_KERNEL_BYTES
        self._socket = AnyioSocket(raw)
        connect(raw, address, ipv6=ipv6)

    def subscribe(self, topic: bytes) -> None:
        self._socket.set_option(zmq.SUBSCRIBE, topic)

    def unsubscribe(self, topic: bytes) -> None:
        self._socket.set_option(zmq.UNSUBSCRIBE, topic)

    async def read(self, accept: Callable[[Frames], None]) -> None:
        await self._socket.read(accept)

    def close(self) -> None:
        self._socket.close()


class CurveNetwork:
    """Network that connects with one key pair to brokers of one pinned public key."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], pair: CurvePair, broker_public: bytes) -> None:
        self._context = context
        self._pair = pair
        self._broker_public = broker_public
        self._resolver = Resolver()

    def dealer(self, endpoint: str) -> CurveDealer:
        address = split_endpoint(endpoint)  # first, because a failure after the socket is made would leave it open
        return CurveDealer(self._raw(zmq.DEALER), address, self._resolver)

    def subscriber(self, endpoint: str) -> CurveSubscriber:
        address = split_endpoint(endpoint)
        return CurveSubscriber(self._raw(zmq.SUB), address, ipv6=self._resolver.needs_ipv6(address))

    def peer(self, endpoint: str) -> CurvePeer:
        address = split_endpoint(endpoint)
        raw = self._raw(zmq.SUB, PEER_BYTES_MAX)
        raw.rcvhwm = PEER_MESSAGES_MAX
        return CurvePeer(raw, address, self._resolver)

    def _raw(self, kind: int, frame_bytes_max: int = BODY_BYTES_MAX) -> zmq.Socket[bytes]:
        raw = _bounded(self._context.socket(kind), frame_bytes_max)
        raw.tcp_keepalive_idle = NOTICE_IDLE_S
        raw.tcp_keepalive_intvl = NOTICE_INTERVAL_S
        raw.curve_serverkey = self._broker_public
        raw.curve_publickey = self._pair.public
        raw.curve_secretkey = self._pair.secret
        return raw


class CurveRouter:
    """ROUTER socket of the broker's process, which runs on asyncio; see `ports.Router`.

    Its descriptor shows only changes (see `anyiosocket`), and a send may consume one: so `send` looks for messages.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], pair: CurvePair, endpoint: str) -> None:
        raw = _server(context.socket(zmq.ROUTER), pair, BODY_BYTES_MAX)
        raw.router_mandatory = True
        raw.sndhwm = REPLIES_MAX
        self._raw = raw
        self._reader = DescriptorReader(raw.FD, self._read)
        self._accept: Accept | None = None
        self._reading = False
        self._surplus = False  # frames beyond the bound of the last message are still to be dropped
        self.endpoint = _bind(raw, endpoint)

    async def serve(self, accept: Accept) -> None:
        self._accept = accept
        await self._reader.run()

    def send(self, peer: bytes, frames: Sequence[bytes]) -> Sent:
        raw = self._raw
        try:
            send_frame(raw, peer, NOT_LAST)
            for frame in frames[:-1]:
                send_frame(raw, frame, NOT_LAST)
            send_frame(raw, frames[-1], NOBLOCK)
        except zmq.Again:
            return Sent.FULL
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return Sent.GONE
        finally:
            if not self._reading and has_message(raw):
                self._reader.read_again()
        return Sent.DONE

    def close(self) -> None:
        self._raw.close(linger=0)

    def _read(self) -> None:
        assert self._accept is not None, "nobody serves"
        self._reading = True
        try:
            self._accept(self._messages())
        finally:
            self._reading = False
            if has_message(self._raw):  # the replies that were sent meanwhile may have consumed a change
                self._reader.read_again()

    def _messages(self) -> Iterator[Incoming]:
        """Receive the messages that have arrived; after `DRAIN_S` other tasks get a turn first.

        Of a message with more than `FRAMES_MAX` frames one frame more is kept, so that it is refused.
        """
        receive = self._raw.recv
        alone = True
        ends_s = time.perf_counter() + DRAIN_S
        with suppress(zmq.Again):
            while not self._surplus or self._drop_surplus():
                first = frame = receive(NOBLOCK, copy=False)
                frames: Frames = []
                while frame.more and len(frames) <= FRAMES_MAX:
                    frame = receive(NOBLOCK, copy=False)
                    frames.append(frame.bytes)
                self._surplus = frame.more
                yield Incoming(first.bytes, _key_of(first), frames)
                if alone and not has_message(self._raw):  # cheaper than the exception that ends a pass with several
                    return
                alone = False
                if time.perf_counter() >= ends_s:
                    return
            self._reader.read_again()  # to drop more of the surplus

    def _drop_surplus(self) -> bool:
        """Drop up to `SURPLUS_FRAMES_MAX` frames beyond the bound; return whether none is left."""
        for _ in range(SURPLUS_FRAMES_MAX):
            if not self._raw.recv(NOBLOCK, copy=False).more:
                self._surplus = False
                break
        return not self._surplus


class CurvePublisher:
    """XPUB socket of live events, which also receives subscriptions; see `ports.Publisher`.

    Each received frame is one subscription: libzmq may announce further frames of a message that never come.
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
                if not has_message(self._socket.raw):
                    break
                frame = self._socket.raw.recv(NOBLOCK, copy=False)
                if frame.bytes[:1] in (b"\0", b"\1"):
                    changes.append(Subscription(frame.bytes[1:], frame.bytes[0] == 1, _machine(frame)))
            if changes:
                return changes

    def close(self) -> None:
        self._socket.close()


def _machine(frame: zmq.Frame) -> str | None:
    """Return the key of the peer that sent the frame; None: libzmq made the frame, because a connection has ended."""
    try:
        return _key_of(frame)
    except zmq.ZMQError:
        return None


def _key_of(frame: zmq.Frame) -> str:
    """Return the key, as the Gatekeeper has set it, of the peer that sent the frame."""
    key = frame.get("User-Id")
    assert isinstance(key, str), "the Gatekeeper has set no key for this peer"
    return key


def bind_gatekeeper(context: zmq.Context[zmq.Socket[bytes]]) -> AnyioSocket:
    """Bind the ZAP socket, on which libzmq asks whether to admit each peer; bind it before any other socket."""
    raw = context.socket(zmq.ROUTER)  # can have many requests open; a REP socket has one
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
    raw.backlog = BACKLOG
    raw.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    raw.zap_domain = ZAP_DOMAIN
    raw.curve_server = True
    raw.curve_publickey = pair.public
    raw.curve_secretkey = pair.secret
    return raw


def _bind(raw: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind the socket and return its endpoint, with the real port instead of port 0."""
    try:
        address = split_endpoint(endpoint)
        raw.ipv6 = address.is_ipv6 or only_ipv6(address.host)
        raw.bind(f"tcp://{address}".removesuffix(":0") + ":*" if address.port == 0 else f"tcp://{address}")
    except zmq.ZMQError as error:
        raw.close(linger=0)
        number = error.errno or 0
        why = _BIND_ADVICE.get(number, "name another endpoint")
        raise OperatorError(
            f"cannot listen on {endpoint}: {zmq.strerror(number)}; {why}", exit_code=EXIT_UNAVAILABLE
        ) from error
    except OperatorError:
        raw.close(linger=0)
        raise
    bound = raw.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    return bound.rstrip(b"\0").decode()
