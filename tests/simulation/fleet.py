"""The brokers of a fleet in a simulated world: they share one store, and each has a clock of its own."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Final

from airunner.broker.aws.opening import NO_LINES, Lines
from airunner.broker.broker import Broker, Membership
from airunner.broker.counts import Counts
from airunner.broker.relay.exchange import Exchange
from airunner.broker.relay.listeners import Listeners
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Engine, Identity, StoreAway
from airunner.certs.authority import NoVerifier
from airunner.certs.sealed import topic_of
from airunner.protocol.frames import PEER_TOPIC
from tests.simulation.baton import Baton
from tests.simulation.brokers import Brokers, Main, together
from tests.simulation.cluster import Cluster
from tests.simulation.faults import Faults
from tests.simulation.fleetfaults import FleetFaults
from tests.simulation.machine import Machine
from tests.simulation.network import SimDoors
from tests.simulation.sharedengine import SharedEngine

if TYPE_CHECKING:
    from tests.simulation.world import World

BROKERS_MAX: Final = 3
FLEET_KEY: Final = bytes(range(32))


class Fleet(Brokers):
    """Several brokers, or one, on one store."""

    def __init__(self, world: World) -> None:
        brokers = world.random.choice([1, 2, BROKERS_MAX, BROKERS_MAX])
        super().__init__(world, tuple(f"broker-{number}" for number in range(brokers)))
        world.network.relays = True
        world.network.hints = PEER_TOPIC + topic_of(FLEET_KEY)
        skews_ms = world.random.choice([0, 600_000, 3 * 3_600_000])
        for name in self.names:
            self.offsets_ms[name] = world.random.randrange(-skews_ms, skews_ms + 1)

    def main(self, machine: Machine, doors: SimDoors) -> Main:
        thread = Baton(self.world.random)
        return partial(self._main, machine, doors, thread)

    async def _main(self, machine: Machine, doors: SimDoors, thread: Baton) -> None:
        """Open the store and run; a broker that does not reach it ends, and is started again."""
        thread.start()
        identity = Identity(
            broker=machine.name, fleet="fleet", requests=doors.router.endpoint, events=doors.publisher.endpoint
        )
        try:
            engine = await self.opened(machine, thread, identity)
        except StoreAway as away:
            self.world.note(f"{machine.name} cannot open the store: {away}")
            return
        edges = self.world.edges(self.offsets_ms[machine.name], machine)
        connect = self.world.network.of_machine(machine).peer
        exchange = Exchange(doors.publisher, connect, Listeners(lambda _key: True), edges.random)
        broker = Broker(
            Store(engine),
            doors.router,
            exchange,
            NoVerifier(),
            edges,
            thread,
            Counts(),
            membership=Membership(exchange, FLEET_KEY),
            change_secret=FLEET_KEY,
            lines=self.lines(machine),
        )
        await together(broker.run, exchange.run, thread.run)

    def lines(self, machine: Machine) -> Lines:
        """Lines of a broker beside its store."""
        del machine
        return NO_LINES

    @abstractmethod
    async def opened(self, machine: Machine, thread: Baton, identity: Identity) -> Engine:
        """Open the store for a broker. Raises `StoreAway`."""

    def heal(self) -> None:
        super().heal()
        self.world.network.deaf = self.world.random.choice([0.0, 0.0, 1.0])  # hints may be lost for ever


class PostgresFleet(Fleet):
    """A fleet on the simulated PostgreSQL."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.cluster = Cluster(world.network, world.recorder)

    async def opened(self, machine: Machine, thread: Baton, identity: Identity) -> Engine:
        line = self.cluster.line(machine, thread)
        await line.open()
        return await thread.get(lambda: SharedEngine(self.cluster.server, line, identity))

    def faults(self) -> Faults:
        return FleetFaults(self.world, self.cluster)

    def store_down(self, machine: Machine, *, power: bool) -> None:
        self.cluster.machine_gone(machine, silently=power)

    def heal(self) -> None:
        self.cluster.heal()
        super().heal()
