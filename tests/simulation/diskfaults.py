"""What goes wrong with the disk of a broker that is alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from airunner.broker.store.room import Room
from tests.simulation.disk import Disk
from tests.simulation.faults import Faults

if TYPE_CHECKING:
    from tests.simulation.world import World


class DiskFaults(Faults):
    """Breaks a world with one broker, and its disk."""

    def __init__(self, world: World, disk: Disk) -> None:
        super().__init__(world)
        self._disk = disk

    def faults(self) -> list[tuple[int, Callable[[], None]]]:
        return [
            *super().faults(),
            (2, self._crash_in_a_write),
            (1, self._disk.break_a_write),
            (1, self._fill_disk),
            (1, self._leave_little_room),
        ]

    def _crash_in_a_write(self) -> None:
        """The plug is pulled, or the process killed, at one of the next things that it does to its disk."""
        self._disk.crash_at(self._random.randrange(1, 60), power=self._random.random() < 0.7)

    def _fill_disk(self) -> None:
        self._disk.fill()
        self._world.note("the disk is full")
        self._world.network.later(self._random.random() * 8, self._disk.heal)

    def _leave_little_room(self) -> None:
        """Below the reserve, or a part of it, and not full."""
        self._disk.left = self._random.choice([Room.RUNNING, Room.ENDING])
        self._world.note(f"the disk has little room: {self._disk.left.name}")
        self._world.network.later(self._random.random() * 10, self._disk.heal)
