"""The brokers of a simulated world, which are started again whenever they end: one on a disk of its own, or a fleet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio

from airunner.broker.broker import Broker
from airunner.broker.changefeed import SECRET_BYTES
from airunner.broker.counts import Counts
from airunner.certs.authority import NoVerifier
from tests.simulation.disk import Disk
from tests.simulation.diskfaults import DiskFaults
from tests.simulation.faults import Faults
from tests.simulation.history import Killed, Started
from tests.simulation.machine import Machine
from tests.simulation.network import SimDoors
from tests.simulation.thread import SimThread

if TYPE_CHECKING:
    from tests.simulation.world import World

Main = Callable[[], Awaitable[None]]


class Brokers(ABC):
    """All brokers of a world.

    `late_s`: how late the store shows which jobs there are, at the most.
    """

    late_s = 0.0

    def __init__(self, world: World, names: tuple[str, ...]) -> None:
        self.world = world
        self.names = names
        self.machines: dict[str, Machine] = {}
        self.offsets_ms = dict.fromkeys(names, 0)  # of each one's clock, from its next start on

    async def keep(self, name: str) -> None:
        """Start a broker whenever there is none of this name."""
        world = self.world
        while True:
            machine = self.machines[name] = Machine(name)
            doors = SimDoors(world.network, machine)
            main = self.main(machine, doors)
            wall_ms = world.wall_ms(0) + self.offsets_ms[name]
            world.recorder.add(Started, machine=name, broker=True, wall_offset_ms=wall_ms)
            world.network.broker_there(doors)
            machine.start(world.tasks, main)
            await machine.ended.wait()
            if machine.crashed is not None:
                world.note(f"{name} crashed: {machine.crashed!r}")
                self.judge(machine.crashed)
            if not machine.stopped:
                self.down(machine, "crash", power=False)
            await anyio.sleep(world.pause_s([0.2, 2.0, 12.0]))  # virtual

    def judge(self, crashed: BaseException) -> None:
        """Raise if a broker may not end by this; a disk ends one in many ways."""
        del crashed

    @abstractmethod
    def main(self, machine: Machine, doors: SimDoors) -> Main:
        """What a broker's process does."""

    @abstractmethod
    def faults(self) -> Faults:
        """What breaks them."""

    def drawn(self) -> str:
        """Some broker; nothing is drawn where there is one."""
        return self.names[0] if len(self.names) == 1 else self.world.random.choice(self.names)

    def kill(self, name: str, *, power: bool) -> None:
        """SIGKILL, or the plug."""
        machine = self.machines.get(name)
        if machine is not None and machine.alive:
            machine.kill()
            self.down(machine, "power" if power else "kill", power=power)

    def down(self, machine: Machine, why: str, *, power: bool) -> None:
        """Its process is no more; neither is anything that only it knew."""
        self.world.recorder.add(Killed, machine=machine.name, why=why)
        self.store_down(machine, power=power)
        self.world.network.broker_gone(machine.name, silently=power and self.world.random.random() < 0.5)

    @abstractmethod
    def store_down(self, machine: Machine, *, power: bool) -> None:
        """What its end does to what it stores."""

    def heal(self) -> None:
        """Everything works, and all clocks are right."""
        for machine in self.machines.values():
            if machine.stopped:
                self.world.wake(machine)
        for name, offset_ms in self.offsets_ms.items():
            if offset_ms:
                self.offsets_ms[name] = 0
                self.kill(name, power=False)


class Alone(Brokers):
    """One broker, on a disk of its own."""

    def __init__(self, world: World, disk: Disk) -> None:
        super().__init__(world, ("broker",))
        self._disk = disk

    def main(self, machine: Machine, doors: SimDoors) -> Main:
        offload = SimThread(self.world.random)
        broker = Broker(
            self._disk.open(),
            doors.router,
            doors.publisher,
            NoVerifier(),
            self.world.edges(self.offsets_ms[machine.name], machine),
            offload,
            Counts(),
            disk=self._disk,
            change_secret=bytes(SECRET_BYTES),
        )
        return partial(together, broker.run, offload.run)

    def faults(self) -> Faults:
        return DiskFaults(self.world, self._disk)

    def store_down(self, machine: Machine, *, power: bool) -> None:
        del machine
        self._disk.crash(power=power)

    def heal(self) -> None:
        self._disk.heal()
        super().heal()


async def together(*runs: Main) -> None:
    """Run all of these until one fails."""
    async with anyio.create_task_group() as group:
        for run in runs:
            group.start_soon(run)
