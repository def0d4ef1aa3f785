"""The simulated network: what `transport.ports` promises of sockets, with everything that can go wrong between them.

Frames are the real ones, byte for byte, and sockets those of `transport.memory`. A message takes a while, and may be
lost, doubled or overtaken; a pair of machines may be parted in one direction or both; a connection may break; a machine
may have a slow link. The broker's side records what it is asked and what it says: by that the oracle judges it.

```
 SimDealer ──┐                              ┌── SimDoors.router      one of each for every life of a broker
             ├── SimNetwork: delay, fate ───┤
 SimEar ─────┘                              └── SimDoors.publisher
```
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from random import Random

import anyio

from airunner.protocol.coding import decode_reply, decode_request
from airunner.protocol.errors import PeerError
from airunner.protocol.frames import unpack_reply, unpack_request
from airunner.protocol.requests import DequeueJob, Ping, Request
from airunner.transport.memory import MemoryDealer, MemoryPublisher, MemoryRouter, MemorySubscriber
from airunner.transport.ports import EVENTS_MESSAGES_MAX, Frames, Incoming, Sent, Subscription
from tests.simulation.history import Asked
from tests.simulation.links import LONG_S, Waiting, Way, Weather
from tests.simulation.machine import Machine, this_machine, true_s
from tests.simulation.recording import Recorder

REQUESTS_PORT = 7070
EVENTS_PORT = 7071
KEEPALIVE_S = 11.0  # until a connection to a machine that is silent is given up


class SimNetwork:
    """All that is between the machines."""

    def __init__(self, random: Random, recorder: Recorder) -> None:
        self.random = random
        self.recorder = recorder
        self.weather = Weather()
        self.parted: set[tuple[str, str]] = set()  # (from, to), by the machines' names
        self.doors: dict[str, SimDoors] = {}  # of each broker that is there
        self.ears: dict[SimEar, None] = {}
        self.waited: dict[str, Waiting] = {}  # for each subscriber, at the most
        self.numbers = count(1)
        self.rates: dict[str, float] = {}  # bytes a second of machines with a slow link, each way of each connection
        self.swallows = True  # proxies of slow links may hide that a request is being carried
        self.traps: dict[str, Callable[[], None]] = {}  # sprung when that machine next sends a heartbeat
        self.relays = False  # brokers are connected to each other, and count who listens
        self.hints = b""  # topic of what brokers say to each other
        self.deaf = 0.0  # how likely such a message is lost
        self.answered: set[bytes] = set()  # ids of requests, whichever broker it was
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._changed = anyio.Event()

    async def run(self) -> None:
        """Carry messages for ever; the world's own task."""
        while True:
            while self._due and self._due[0][0] <= true_s():
                heapq.heappop(self._due)[2]()
            with anyio.CancelScope(deadline=self._due[0][0] if self._due else math.inf):
                await self._changed.wait()
            self._changed = anyio.Event()

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Have the world do something after a while."""
        heapq.heappush(self._due, (true_s() + delay_s, next(self.numbers), act))
        self._changed.set()

    def carry(self, origin: str, target: str, arrive: Callable[[], None], way: Way, frames: Sequence[bytes]) -> None:
        """One message on its way, whatever becomes of it."""
        if (origin, target) in self.parted or self.random.random() < self.weather.loss:
            return
        through_s = way.through_s(sum(map(len, frames)))
        if through_s > LONG_S:
            self.recorder.rare["a message was long on a slow link"] += 1
        for _ in range(2 if self.random.random() < self.weather.doubling else 1):
            delay_s = through_s + self.weather.delay_s + self.random.random() * self.weather.jitter_s
            if self.random.random() < self.weather.slow:
                delay_s += self.random.random() * self.weather.slow_s
            self.later(delay_s, arrive)

    def note_waiting(self, ear: SimEar, message_bytes: int) -> None:
        """So much waits for a subscriber."""
        most = self.waited.setdefault(ear.machine.name, Waiting())
        most.bytes = max(most.bytes, sum(ear.unread) + ear.way.waiting_bytes)
        most.message_bytes = max(most.message_bytes, message_bytes)

    def break_connections(self, share: float) -> None:
        """Some of the connections for requests end, at both ends."""
        for dealer in self.dealers:
            if self.random.random() < share:
                dealer.close()

    @property
    def dealers(self) -> list[SimDealer]:
        """Connections to the brokers that are there."""
        dealers = [dealer for doors in self.doors.values() for dealer in doors.router.dealers.values()]
        return [dealer for dealer in dealers if not dealer.over.is_set()]

    def of_machine(self, machine: Machine) -> SimEndpoint:
        """The `Network` that this machine's parts are handed."""
        return SimEndpoint(self, machine)

    def machine_gone(self, machine: Machine) -> None:
        """Its kernel closes what it had open; the broker hears of it, unless they are parted."""
        for dealer in self.dealers:
            if dealer.machine is machine:
                dealer.close()
        for ear in [ear for ear in self.ears if ear.machine is machine]:
            ear.close()

    def broker_there(self, doors: SimDoors) -> None:
        """A broker has opened its doors."""
        self.doors[doors.machine.name] = doors
        for ear in self.ears:
            if ear.broker == doors.machine.name:
                self.later(self.random.random() * 0.3, ear.connect)

    def broker_gone(self, name: str, *, silently: bool) -> None:
        """The broker's process ended: its connections are reset, or with its whole machine just dead."""
        dealers = [dealer for dealer in self.dealers if dealer.broker == name]
        self.doors.pop(name, None)
        ends = [dealer.close for dealer in dealers]
        ends += [ear.over.set for ear in self.ears if ear.broker == name and isinstance(ear, SimPeer)]
        for end in ends:
            if not silently:
                self.later(self.random.random() * 0.01, end)
            elif self.relays:
                self.later(KEEPALIVE_S, end)
        for ear in [ear for ear in self.ears if ear.machine.name == name]:
            ear.close()


class SimEndpoint:
    """A `Network`, as one machine has it."""

    def __init__(self, network: SimNetwork, machine: Machine) -> None:
        self._network = network
        self._machine = machine

    def dealer(self, endpoint: str) -> SimDealer:
        return SimDealer(self._network, self._machine, endpoint)

    def subscriber(self, endpoint: str) -> SimEar:
        assert str(EVENTS_PORT) in endpoint, "where the broker says that it publishes"
        return SimEar(self._network, self._machine, host_of(endpoint))

    def peer(self, endpoint: str) -> SimPeer:
        """Connect one broker to another's live events."""
        return SimPeer(self._network, self._machine, host_of(endpoint))


class SimDealer(MemoryDealer):
    """One connection for requests. At the endpoint of a broker that is not there it drops at once."""

    def __init__(self, network: SimNetwork, machine: Machine, endpoint: str) -> None:
        self.broker = host_of(endpoint)
        doors = network.doors.get(self.broker)
        self.router = MemoryRouter() if doors is None else doors.router
        super().__init__(self.router, f"{machine.name} {next(network.numbers)}".encode())
        self.machine = machine
        self._network = network
        self._up, self.down = (Way(network.rates.get(machine.name)) for _ in range(2))
        # A proxy may swallow requests: one that takes longer than its time comes through only over another link.
        self._hidden = machine.name in network.rates and network.random.random() < 0.5 and network.swallows
        if doors is None:
            network.later(network.random.random() * 0.01, self.close)
        else:
            doors.router.dealers[self.peer] = self

    def send(self, frames: Sequence[bytes]) -> bool:
        self._network.carry(self.machine.name, self.broker, lambda: self._arrive(frames), self._up, frames)
        trap = self._network.traps.get(self.machine.name)
        if trap is not None and b"UpdateJob" in frames[-1]:
            del self._network.traps[self.machine.name]
            self._network.later(0, trap)
        return True

    def progress(self) -> int:
        return self.down.passed_bytes + (0 if self._hidden else self._up.passed_bytes)

    def close(self) -> None:
        """The connection is over, and this end hears of it; what has arrived is still read at the other."""
        self.over.set()

    def hear(self, frames: Frames) -> None:
        """A reply has arrived."""
        if not self.over.is_set() and self.machine.alive:
            self.replies.put(frames)

    def _arrive(self, frames: Sequence[bytes]) -> None:
        """A request has arrived in the broker's socket; it is read when the broker gets to it."""
        doors = self._network.doors.get(self.broker)
        if doors is not None and doors.router is self.router and doors.router.machine.alive:
            super().send(frames)


class SimEar(MemorySubscriber):
    """A SUB socket: it reconnects by itself and subscribes anew."""

    def __init__(self, network: SimNetwork, machine: Machine, broker: str) -> None:
        super().__init__(MemoryPublisher())
        self.machine = machine
        self.broker = broker
        self.heard_by: SimDoors | None = None
        self.way = Way(network.rates.get(machine.name))
        self._network = network
        network.ears[self] = None
        self.connect()

    def subscribe(self, topic: bytes) -> None:
        self.topics.add(topic)
        self._tell(topic, wanted=True)

    def unsubscribe(self, topic: bytes) -> None:
        self.topics.discard(topic)
        self._tell(topic, wanted=False)

    @property
    def unread(self) -> list[int]:
        """Bytes of each message that has arrived."""
        return [sum(map(len, frames)) for frames in self.events._messages]

    @property
    def full(self) -> bool:
        """Whether the socket at either end takes no more."""
        return EVENTS_MESSAGES_MAX in (len(self.events._messages), self.way.waiting)

    def close(self) -> None:
        """The connection is over, and the publisher is told of each topic."""
        self.over.set()
        self._network.ears.pop(self, None)
        if self._network.relays and self.heard_by is not None:
            ends = [Subscription(topic, wanted=False, key=None) for topic in sorted(self.topics)]
            self._network.later(0.001, partial(self.heard_by.publisher.left, ends))

    def hear(self, frames: Frames) -> None:
        """Something published has arrived."""
        listens = self in self._network.ears and frames[0] in self.topics and self.machine.alive
        if listens and self.events.put(frames):
            self._network.note_waiting(self, sum(map(len, frames)))

    def connect(self) -> None:
        """To whichever broker lives; tried again while they are parted, as libzmq does it."""
        network = self._network
        if self not in network.ears or network.doors.get(self.broker) is self.heard_by:
            return
        if (self.machine.name, self.broker) in network.parted:
            network.later(0.2 + network.random.random() * 0.1, self.connect)
            return
        self.heard_by = network.doors.get(self.broker)
        for topic in sorted(self.topics):
            self._tell(topic, wanted=True)

    def _tell(self, topic: bytes, *, wanted: bool) -> None:
        doors = self.heard_by
        if doors is not None and (self.machine.name, self.broker) not in self._network.parted:
            self._network.later(0.001, lambda: doors.publisher.wanted(topic, wanted=wanted))


class SimPeer(SimEar):
    """A broker's connection to the live events of another; it ends with that, and does not come again by itself."""

    def __init__(self, network: SimNetwork, machine: Machine, broker: str) -> None:
        super().__init__(network, machine, broker)
        if self.heard_by is None:
            network.later(network.random.random() * 0.01, self.over.set)

    def connect(self) -> None:
        """Only once."""
        if self.heard_by is None and (self.machine.name, self.broker) not in self._network.parted:
            self.heard_by = self._network.doors.get(self.broker)

    def _tell(self, topic: bytes, *, wanted: bool) -> None:
        """TCP sends it again until it has arrived."""
        if (self.machine.name, self.broker) in self._network.parted and not self.over.is_set():
            self._network.later(0.2, partial(self._tell, topic, wanted=wanted))
        else:
            super()._tell(topic, wanted=wanted)

    def hear(self, frames: Frames) -> None:
        """A hint of another broker may be lost."""
        lost = frames[0] == self._network.hints and frames[1] and self._network.random.random() < self._network.deaf
        if lost:
            self._network.recorder.rare["a hint was lost"] += 1
        else:
            super().hear(frames)


class SimDoors:
    """The sockets of one life of a broker."""

    def __init__(self, network: SimNetwork, machine: Machine) -> None:
        self.machine = machine
        self.router = SimRouter(network, machine)
        self.publisher = SimPublisher(network, machine, self)


class SimRouter(MemoryRouter):
    """The door for requests; it records who asked what and what was said."""

    def __init__(self, network: SimNetwork, machine: Machine) -> None:
        super().__init__()
        self.endpoint = f"tcp://{machine.name}:{REQUESTS_PORT}"
        self.machine = machine
        self.dealers: dict[bytes, SimDealer] = {}
        self._network = network
        self._asked: dict[bytes, tuple[Request, int]] = {}

    async def receive(self) -> list[Incoming]:
        batch = [incoming._replace(key=_machine_of(incoming.peer)) for incoming in await super().receive()]
        for incoming in batch:
            with suppress(PeerError):
                frames = unpack_request(incoming.frames)
                self._note(_machine_of(incoming.peer), frames.request_id, decode_request(frames.body))
        return batch

    def _note(self, machine: str, request_id: bytes, request: Request) -> None:
        if not isinstance(request, Ping):
            self._asked.setdefault(request_id, (request, self._network.recorder.now_ms))
            if isinstance(request, DequeueJob):
                asked = {"machine": machine, "broker": self.machine.name, "request_id": request_id}
                self._network.recorder.add(Asked, **asked, queues=request.queues, wait_ms=request.wait_ms)
            if request_id in self._network.answered:
                self._network.recorder.rare[f"{type(request).__name__} asked again after it was answered"] += 1

    def send(self, peer: bytes, frames: Sequence[bytes]) -> Sent:
        assert this_machine() is self.machine, "a broker speaks for itself"
        request_id, body = unpack_reply(list(frames))
        if (asked := self._asked.get(request_id)) is not None:
            self._network.answered.add(request_id)
            told = {"machine": _machine_of(peer), "broker": self.machine.name, "request_id": request_id}
            self._network.recorder.told(told, asked[0], asked[1], decode_reply(body))
        dealer = self.dealers.get(peer)
        if dealer is None or dealer.over.is_set():
            return Sent.GONE
        hear = partial(dealer.hear, list(frames))
        self._network.carry(self.machine.name, dealer.machine.name, hear, dealer.down, frames)
        return Sent.DONE


class SimPublisher(MemoryPublisher):
    """The door for live events."""

    def __init__(self, network: SimNetwork, machine: Machine, doors: SimDoors) -> None:
        super().__init__()
        self.endpoint = f"tcp://{machine.name}:{EVENTS_PORT}"
        self._network = network
        self._machine = machine
        self._doors = doors

    def wanted(self, topic: bytes, *, wanted: bool) -> None:
        """A subscription has arrived; as XPUB does it, the last to leave a topic is told of and nobody before.

        Behind a relay each is told of, as XPUB_VERBOSER does it.
        """
        others = any(topic in ear.topics for ear in self._network.ears if ear.heard_by is self._doors)
        if self._machine.alive and (wanted or not others or self._network.relays):
            self.change(Subscription(topic, wanted=wanted, key=""))

    def left(self, ends: Sequence[Subscription]) -> None:
        """A subscriber's connection has ended."""
        for end in ends if self._machine.alive else ():
            self.change(end)

    def publish(self, frames: Sequence[bytes]) -> None:
        for ear in list(self._network.ears):
            if ear.heard_by is not self._doors or frames[0] not in ear.topics:
                continue
            if ear.full:
                self._network.recorder.rare["a slow subscriber missed events"] += 1
                continue
            hear = partial(ear.hear, list(frames))
            self._network.carry(self._machine.name, ear.machine.name, hear, ear.way, frames)


def host_of(endpoint: str) -> str:
    return endpoint.removeprefix("tcp://").rpartition(":")[0]


def _machine_of(peer: bytes) -> str:
    return peer.split()[0].decode()
