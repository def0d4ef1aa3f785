"""Relay actor: keeps the relay process running, and is the broker's Publisher of live events.

```
 Announcer ──publish──► Relay ──socket pair──► relay process ──XPUB──► monitors
           ◄─subscriptions─┘    ◄──reports────────┘
```

- The broker never waits for the process: live events for which the socket has no room are dropped, and monitors replay
  them.
- When the process ends, reports a failure, or reads nothing for `HANG_S`, this actor starts another on the same port,
  after pauses that grow from `RESTART_FIRST_MS` to `RESTART_LAST_MS`. Subscribers reconnect and replay the gap.
- In a fleet the process connects to the other brokers' relays too, and reports their hints and which of them refuse it.
- The process is a new program, not a fork, because the broker has threads. It inherits stderr, its end of the socket
  pair, and no other descriptor of the broker; and none of airunner's environment variables.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

import anyio
import msgspec

from airunner.broker.counts import Counts
from airunner.broker.health import Health
from airunner.broker.relay.line import PEERS_PACKET, REPLAY_PACKET, PacketSocket, Report, packed
from airunner.broker.relay.peerlist import PeerList
from airunner.certs.ownership import own_home
from airunner.protocol.errors import EXIT_IO, EXIT_UNAVAILABLE, OperatorError
from airunner.transport.backoff import Backoff
from airunner.transport.ports import ALL_LISTENERS_LEFT, Subscription

MEMORY_BYTES_MAX: Final = 256 * 1_048_576  # of the process: 40 MiB, and 0.3 MiB for each subscriber that does not read
CONDITION: Final = "events"  # name of the condition in /health
RESTART_FIRST_MS: Final = 50  # shortest pause before the process is started again
RESTART_LAST_MS: Final = 5_000  # longest pause, after the process has ended several times
CALM_S: Final = 60.0  # after a process that ran for so long, the pauses start at the shortest again
HANG_S: Final = 10.0  # seconds for the process to read from its full socket, before it is killed
END_S: Final = 2.0  # seconds for the process to end by itself, once its socket is closed
CHANGES_MAX: Final = 16  # reports that may wait for the Announcer; further ones wait in the socket, then in the process

_BOOTSTRAP: Final = """
import sys
settings, *sys.path[:] = sys.argv[1:]
from airunner.broker.relay.child import main
main(settings)
"""
_OURS: Final = ("AIRUNNER_", "JWT_")  # prefixes of airunner's environment variables
_TERMINAL: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
)  # blocked in the process, which is to end with the broker; a terminal or supervisor sends them to the whole group


def start_relay(endpoint: str, connections_per_s: float, connections_burst_s: float) -> Relay:
    """Start a relay with the home in this process's environment.

    Raises `OperatorError`: the home is invalid, or no process can be started.
    """
    relay = Relay(str(own_home(os.environ).root), endpoint, (connections_per_s, connections_burst_s))
    try:
        relay.start()
    except OSError as error:
        raise OperatorError(f"cannot start the relay of live events: {error.strerror}", exit_code=EXIT_IO) from error
    return relay


class Relay:
    """Relay actor; `start` it, wait until it is `ready`, then `run` it.

    `home` is the broker's home, with its key and allow-list. The process listens at `endpoint` (port 0 picks a free
    port, which further processes use too). `connections`: how many connections a machine may open a second, and how
    many seconds of that rate it may open at once.
    """

    def __init__(
        self,
        home: str,
        endpoint: str,
        connections: tuple[float, float],
        memory_bytes_max: int = MEMORY_BYTES_MAX,
    ) -> None:
        self.endpoint = endpoint
        self._home = home
        self._connections = connections
        self._counts = Counts()
        self._health = Health()
        self._memory_bytes_max = memory_bytes_max
        self._to_announcer, self._changes = anyio.create_memory_object_stream[Sequence[Subscription]](CHANGES_MAX)
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: PacketSocket | None = None
        self._full_since_s: float | None = None
        self._was_ready = False
        self._peers: PeerList | None = None  # None: this broker has no fleet
        self._hear: Callable[[bytes], None] | None = None
        self._unsent: dict[bytes, bytes] = {}  # by first byte: packets for which the socket had no room

    @property
    def pid(self) -> int:
        """Process id of the relay process that runs now."""
        assert self._child is not None, "not started"
        return self._child.pid

    def start(self) -> None:
        """Start the process. Call this in the main thread: the process is killed when the thread that started it ends.

        Raises `OSError`.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            settings = {
                "descriptor": theirs.fileno(),
                "broker": os.getpid(),
                "home": self._home,
                "endpoint": self.endpoint,
                "connections_per_s": self._connections[0],
                "connections_burst_s": self._connections[1],
                "memory_bytes_max": self._memory_bytes_max,
            }
            settings_json = msgspec.json.encode(settings).decode()
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINAL)
            try:
                self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and code
                    (
                        *(sys.executable, "-I", "-X", "utf8", "-c", _BOOTSTRAP, settings_json),
                        *map(os.path.abspath, sys.path),
                    ),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={name: value for name, value in os.environ.items() if not name.startswith(_OURS)},
                )
            except OSError:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._socket = PacketSocket(ours)
        self._full_since_s = None
        self._unsent.clear()
        self._send_peers()

    async def ready(self) -> None:
        """Wait until subscribers can connect.

        Raises `OperatorError`: the process cannot listen.
        """
        assert self._socket is not None, "not started"
        packets = await self._socket.receive()
        report = _report_of(packets[0]) if packets else Report(failure="the relay of live events ended as it started")
        if report.failure:
            exit_code = report.exit_code if packets else EXIT_UNAVAILABLE
            raise OperatorError(report.failure, exit_code=exit_code)
        self.endpoint = report.endpoint
        self._was_ready = True

    async def run(self, counts: Counts, health: Health) -> None:
        """Receive the process's reports, and start another when it ends, until cancelled."""
        self._counts, self._health = counts, health
        backoff = Backoff(lambda: 1.0, RESTART_FIRST_MS, RESTART_LAST_MS)  # no jitter: nothing else restarts with it
        while True:
            began_s = anyio.current_time()
            why = await self._receive_reports()
            ended = await self._kill_and_describe()
            self._counts.add("relay_restarts")
            self._health.degrade(CONDITION, f"{why or ended}; monitors replay until live events are sent again")
            await self._to_announcer.send([ALL_LISTENERS_LEFT])
            if began_s + CALM_S <= anyio.current_time():
                backoff.reset()
            await backoff.pause()
            while not self._start_another():
                await backoff.pause()

    def _start_another(self) -> bool:
        """Start another process; False: the system cannot start one now."""
        try:
            self.start()
        except OSError as error:
            self._health.degrade(CONDITION, f"the relay of live events cannot be started: {error.strerror}")
            return False
        return True

    def publish(self, frames: Sequence[bytes]) -> None:
        """Publish a live message; drop it if the socket has no room."""
        assert self._socket is not None, "not started"
        if self._socket.send(packed(frames)):
            self._full_since_s = None
            if self._unsent:
                self._send_unsent()
            return
        self._counts.add("live_dropped")
        now_s = anyio.current_time()
        if self._full_since_s is None:
            self._full_since_s = now_s
        elif now_s - self._full_since_s >= HANG_S:
            self._kill()

    def join(self, hint_topic: bytes, hear: Callable[[bytes], None]) -> None:
        """See `ports.PeerPublisher`."""
        self._peers, self._hear = PeerList(hint_topic), hear
        self._send_peers()

    def set_peers(self, endpoints: Sequence[str]) -> None:
        """See `ports.PeerPublisher`."""
        assert self._peers is not None, "not joined"
        if self._peers.set(endpoints):
            self._send_peers()
        self._peers.report(self._health)
        self._send_unsent()

    @property
    def parted(self) -> bool:
        """See `ports.PeerPublisher`."""
        return self._peers is not None and self._peers.parted

    def replay_all(self) -> None:
        """See `ports.PeerPublisher`."""
        self._unsent[REPLAY_PACKET] = REPLAY_PACKET
        self._send_unsent()

    def _send_peers(self) -> None:
        if self._peers is not None:
            self._unsent[PEERS_PACKET] = self._peers.packet()
            self._send_unsent()

    def _send_unsent(self) -> None:
        """Send the packets that may not be dropped; those without room are sent after the next message with room."""
        assert self._socket is not None, "not started"
        self._unsent = {kind: packet for kind, packet in self._unsent.items() if not self._socket.send(packet)}

    async def subscriptions(self) -> list[Subscription]:
        """Wait for changes of subscriptions; `ALL_LISTENERS_LEFT`: the process has ended."""
        return list(await self._changes.receive())

    def close(self) -> None:
        """Stop the process, and wait for its end."""
        self._to_announcer.close()
        self._changes.close()
        if self._socket is not None:
            self._socket.close()
        if self._child is not None:
            if not self._was_ready:
                self._kill()
            try:
                self._child.wait(END_S)
            except subprocess.TimeoutExpired:
                self._kill()
                self._child.wait()

    async def _receive_reports(self) -> str:
        """Receive reports until the process closes its socket or reports a failure; return the failure, or ""."""
        assert self._socket is not None, "not started"
        while packets := await self._socket.receive():
            for packet in packets:
                report = _report_of(packet)
                if report.failure:
                    return report.failure
                if report.endpoint:
                    self.endpoint = report.endpoint
                    self._health.clear(CONDITION)
                for name, more in report.counts.items():
                    self._counts.add(name, more)
                if report.hint and self._hear is not None:
                    self._hear(report.hint)
                if report.peer is not None and self._peers is not None:
                    self._peers.note(report.peer)
                    self._peers.report(self._health)
                if report.changes:
                    await self._to_announcer.send(report.changes)
        return ""

    async def _kill_and_describe(self) -> str:
        """Kill the process, wait for its end, and describe the end."""
        assert self._child is not None, "not started"
        assert self._socket is not None, "not started"
        self._socket.close()
        self._kill()
        code = await anyio.to_thread.run_sync(self._child.wait)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the relay of live events has ended ({how}; its memory limit is {self._memory_bytes_max >> 20} MiB)"

    def _kill(self) -> None:
        assert self._child is not None, "not started"
        self._child.kill()


def _report_of(packet: bytes) -> Report:
    return msgspec.msgpack.decode(packet, type=Report)
