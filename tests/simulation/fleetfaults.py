"""What goes wrong with a fleet of brokers: its database, the ways to it, and those between brokers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.cluster import STORE, Cluster
from tests.simulation.faults import Faults

if TYPE_CHECKING:
    from tests.simulation.world import World

ADOPTED_S = 30.0  # long enough that others adopt what a broker owns


class PeerFaults(Faults):
    """Breaks a world with several brokers, whatever they store in."""

    def faults(self) -> list[tuple[int, Callable[[], None]]]:
        return [
            *super().faults(),
            (2, partial(self._stop_broker, ADOPTED_S)),
            (2, self._part_from_store),
            (2, self._part_from_peers),
            (2, self._isolate),
            *self.of_store(),
            (3, self._lose_hints),
            (3, lambda: self._world.network.break_connections(0.7)),
        ]

    @abstractmethod
    def of_store(self) -> list[tuple[int, Callable[[], None]]]:
        """What may break with the store, and how often."""

    def _part_ways(self, name: str, others: list[str]) -> None:
        """One machine and others do not hear each other, or only in one direction."""
        there = [(name, other) for other in others if other != name]
        back = [(other, one) for one, other in there]
        ways = self._random.choice([there, back, there + back, there + back])
        self._world.network.parted.update(ways)
        self._world.note(f"parted: {ways}")
        self._world.network.later(self._random.random() * ADOPTED_S, partial(self._join, ways))

    def _part_from_store(self) -> None:
        self._part_ways(self._world.brokers.drawn(), [STORE])

    def _part_from_peers(self) -> None:
        self._part_ways(self._world.brokers.drawn(), list(self._world.brokers.names))

    def _isolate(self) -> None:
        self._part_ways(self._world.brokers.drawn(), [STORE, *self._world.brokers.names])

    def _lose_hints(self) -> None:
        """What brokers say to each other is lost, all of it or a part, until the next time or the end."""
        self._world.network.deaf = self._random.choice([0.0, 0.3, 1.0])
        self._world.note(f"hints are lost: {self._world.network.deaf}")


class FleetFaults(PeerFaults):
    """Breaks a world with several brokers and their PostgreSQL."""

    def __init__(self, world: World, cluster: Cluster) -> None:
        super().__init__(world)
        self._cluster = cluster

    def of_store(self) -> list[tuple[int, Callable[[], None]]]:
        return [
            (2, self._cut),
            (3, self._cut_in_commit),
            (3, self._slow_store),
            (2, self._lag),
            (1, self._crash_store),
            (1, self._fail_over),
            (2, self._fail_over_behind),
        ]

    def _cut(self) -> None:
        self._cluster.cut(self._world.brokers.drawn())

    def _cut_in_commit(self) -> None:
        """A connection ends in a commit, before it is done or after."""
        self._cluster.cuts[self._world.brokers.drawn()] = self._random.random() < 0.7

    def _slow_store(self) -> None:
        name = self._world.brokers.drawn()
        self._cluster.slow[name] = self._random.choice([0.02, 0.2, 1.0])
        self._world.note(f"the store is slow for {name}: {self._cluster.slow[name]} s")
        self._world.network.later(self._random.random() * 15, partial(self._cluster.slow.pop, name, None))

    def _lag(self) -> None:
        """The standby gets nothing for a while, and nobody is answered."""
        self._cluster.lags = True
        self._world.note("the standby lags")
        self._world.network.later(self._random.random() * 6, self._cluster.catch_up)

    def _crash_store(self) -> None:
        self._world.note("the server crashes")
        self._cluster.crash(self._random.random() * 5)

    def _fail_over(self) -> None:
        self._world.note("the server fails over")
        self._cluster.fail_over(self._random.random() * 8)

    def _fail_over_behind(self) -> None:
        """The primary recovers from a crash with what its standby has not got, and is lost a little later."""
        later, draw = self._world.network.later, self._random.random
        self._cluster.lags = True
        self._world.note("the standby lags, the server crashes, and fails over")
        crash_s = draw() * 2
        fail_s = crash_s + 0.5 + draw() * 4
        later(crash_s, partial(self._cluster.crash, draw() * 0.5))
        later(fail_s, partial(self._cluster.fail_over, draw() * 3))
        later(fail_s + 0.1, self._cluster.catch_up)
