"""What goes wrong with a fleet of brokers on DynamoDB: the service, the ways to it, and those between brokers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.dynamodb.cloud import GOOD_DAY, Cloud
from tests.simulation.fleetfaults import PeerFaults

if TYPE_CHECKING:
    from tests.simulation.world import World


class DynamoFaults(PeerFaults):
    """Breaks a world with several brokers on DynamoDB."""

    def __init__(self, world: World, cloud: Cloud) -> None:
        super().__init__(world)
        self._cloud = cloud

    def of_store(self) -> list[tuple[int, Callable[[], None]]]:
        return [
            (2, self._cut_in_commit),
            (3, self._slow_store),
            (3, self._conflicts),
            (3, self._throttle),
            (4, self._fail),
            (4, self._lose_answers),
            (3, self._delay),
            (2, self._go_down),
        ]

    def _cut_in_commit(self) -> None:
        """The connection of a broker's next transaction ends, before it is done or after."""
        self._cloud.cuts[self._world.brokers.drawn()] = self._random.random() < 0.7

    def _slow_store(self) -> None:
        name = self._world.brokers.drawn()
        self._cloud.slow[name] = self._random.choice([0.02, 0.2, 1.0])
        self._world.note(f"the store is slow for {name}: {self._cloud.slow[name]} s")
        self._world.network.later(self._random.random() * 15, partial(self._cloud.slow.pop, name, None))

    def _trouble(self, length_s: float, *faults: str) -> None:
        """Some faults are likely for a while."""
        for fault in faults:
            self._cloud.trouble[fault] = self._random.choice([0.1, 0.3, 0.7])
        self._world.note(f"trouble with DynamoDB: {self._cloud.trouble}")
        self._world.network.later(self._random.random() * length_s, partial(self._end_trouble, faults))

    def _end_trouble(self, faults: tuple[str, ...]) -> None:
        for fault in faults:
            self._cloud.trouble[fault] = GOOD_DAY.get(fault, 0.0)

    def _conflicts(self) -> None:
        self._trouble(8, "conflict")

    def _throttle(self) -> None:
        self._trouble(8, "throttled", "unprocessed", "short")

    def _fail(self) -> None:
        self._trouble(6, "failed")

    def _lose_answers(self) -> None:
        self._trouble(8, "lost", "unsent")

    def _delay(self) -> None:
        """Calls arrive late, some of them when their broker has given them up, or is gone."""
        self._trouble(8, "late")

    def _go_down(self) -> None:
        """All calls are refused for a while."""
        self._cloud.down = True
        self._world.note("DynamoDB is down")
        self._world.network.later(self._random.random() * 8, partial(vars(self._cloud).update, down=False))
