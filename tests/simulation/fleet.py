"""The brokers of a fleet in a simulated world: they share one simulated PostgreSQL, and each has a clock of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from airunner.broker.broker import Broker, Membership
from airunner.broker.counts import Counts
from airunner.broker.relay.exchange import Exchange
from airunner.broker.relay.listeners import Listeners
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Identity, StoreAway
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
    """Several brokers, or one, on the shared database."""

    def __init__(self, world: World) -> None:
        brokers = world.random.choice([1, 2, BROKERS_MAX, BROKERS_MAX])
        super().__init__(world, tuple(f"broker-{number}" for number in range(brokers)))
        world.network.relays = True
        world.network.hints = PEER_TOPIC + topic_of(FLEET_KEY)
        self.cluster = Cluster(world.network, world.recorder)
        skews_ms = world.random.choice([0, 600_000, 3 * 3_600_000])
        for name in self.names:
            self.offsets_ms[name] = world.random.randrange(-skews_ms, skews_ms + 1)

    def main(self, machine: Machine, doors: SimDoors) -> Main:
        thread = Baton(self.world.random)
        return partial(self._main, machine, doors, thread)

    async def _main(self, machine: Machine, doors: SimDoors, thread: Baton) -> None:
        """Open the database and run; a broker that does not reach it ends, and is started again."""
        thread.start()
        line = self.cluster.line(machine, thread)
        identity = Identity(
            broker=machine.name, fleet="fleet", requests=doors.router.endpoint, events=doors.publisher.endpoint
        )
        opened: list[Store] = []
        try:
            await line.open()
            failed = await thread.do(lambda: opened.append(Store(SharedEngine(self.cluster.server, line, identity))))
            if failed is not None:
                raise failed
        except StoreAway as away:
            self.world.note(f"{machine.name} cannot open the store: {away}")
            return
        edges = self.world.edges(self.offsets_ms[machine.name], machine)
        connect = self.world.network.of_machine(machine).peer
        exchange = Exchange(doors.publisher, connect, Listeners(lambda _key: True), edges.random)
        broker = Broker(
            opened[0],
            doors.router,
            exchange,
            NoVerifier(),
            edges,
            thread,
            Counts(),
            membership=Membership(exchange, FLEET_KEY),
            change_secret=FLEET_KEY,
        )
        await together(broker.run, exchange.run, thread.run)

    def faults(self) -> Faults:
        return FleetFaults(self.world, self.cluster)

    def store_down(self, machine: Machine, *, power: bool) -> None:
        self.cluster.machine_gone(machine, silently=power)

    def heal(self) -> None:
        self.cluster.heal()
        super().heal()
        self.world.network.deaf = self.world.random.choice([0.0, 0.0, 1.0])  # hints may be lost for ever
