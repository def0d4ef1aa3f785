"""What goes wrong in a simulated run, and when; all of it drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from tests.simulation.history import Killed, Slept
from tests.simulation.links import Weather
from tests.simulation.machine import Machine, true_s
from tests.simulation.processes import SimKeepers

if TYPE_CHECKING:
    from tests.simulation.world import World

FAULTS_S: Final = 60.0
PAUSE_S: Final = 8.0  # at the most, between two faults
HOUR_MS: Final = 3_600_000


class Faults:
    """Breaks a world for a while."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random

    async def run(self) -> None:
        """One fault after the other; some last, and are mended while others come."""
        faults = self.faults()
        weights = [weight for weight, _ in faults]
        await anyio.sleep(1.0)  # virtual
        while anyio.current_time() < FAULTS_S:
            ((_, fault),) = self._random.choices(faults, weights)
            fault()
            await anyio.sleep(self._random.random() * PAUSE_S)  # virtual

    def faults(self) -> list[tuple[int, Callable[[], None]]]:
        """What may break, and how often."""
        return [
            (2, self._storm),
            (3, self._part),
            (2, self._kill_broker),
            (1, self._jump),
            (2, self._stop_broker),
            (3, self._kill_agent),
            (3, self._stop_agent),
            (3, self._suspend_agent),
            (2, self._refuse),
            (2, self._fill_agents_disk),
            (1, self._stop_user),
            (2, self._stop_agent_as_it_completes),
            (3, self._stop_agent_as_it_renews),
            (2, self._kill_user),
            (1, lambda: self._world.network.break_connections(0.5)),
        ]

    # --- the network ----------------------------------------------------------------------------------

    def _storm(self) -> None:
        draw, choice = self._random.random, self._random.choice
        self._world.network.weather = Weather(
            loss=draw() * choice([0, 0.02, 0.2]),
            doubling=draw() * choice([0, 0.05, 0.3]),
            delay_s=draw() * choice([0.001, 0.001, 0.1]),
            jitter_s=draw() * choice([0.001, 0.01, 0.5]),
            slow=draw() * choice([0, 0, 0.1]),
        )
        self._world.note(f"weather: {self._world.network.weather}")

    def _part(self) -> None:
        """Somebody does not hear the broker, or is not heard, or both."""
        name = self._random.choice([*self._world.agents, *self._world.users])
        broker = self._world.brokers.drawn()
        ways = self._random.choice([[(name, broker)], [(broker, name)], [(name, broker), (broker, name)]])
        self._world.network.parted.update(ways)
        self._world.note(f"parted: {ways}")
        self._world.network.later(self._random.random() * 15, partial(self._join, ways))

    def _join(self, ways: list[tuple[str, str]]) -> None:
        self._world.network.parted.difference_update(ways)
        self._world.note(f"joined: {ways}")

    # --- brokers --------------------------------------------------------------------------------------

    def _kill_broker(self) -> None:
        self._world.brokers.kill(self._world.brokers.drawn(), power=self._random.random() < 0.5)

    def _jump(self) -> None:
        """A broker's machine has another time from its next start on."""
        name = self._world.brokers.drawn()
        self._world.brokers.offsets_ms[name] = self._random.randrange(-5 * HOUR_MS, 5 * HOUR_MS)
        self._world.brokers.kill(name, power=self._random.random() < 0.5)

    def _stop_broker(self, length_s: float = 6.0) -> None:
        machine = self._world.brokers.machines.get(self._world.brokers.drawn())
        if machine is not None:
            self._stop(machine, self._random.random() * length_s)

    # --- agents and people ----------------------------------------------------------------------------

    def _agent(self) -> tuple[Machine, SimKeepers]:
        return self._world.agents[self._random.choice(list(self._world.agents))]

    def _kill_agent(self) -> None:
        machine, keepers = self._agent()
        if machine.alive:
            machine.kill()
            keepers.agent_killed()
            self._world.network.machine_gone(machine)
            self._world.recorder.add(Killed, machine=machine.name)

    def _stop_agent(self) -> None:
        machine, _ = self._agent()
        length_s = self._random.random() * 15
        if length_s * 1_000 > self._world.visibility_ms[machine.name]:
            self._world.recorder.rare["an agent woke after its leases"] += 1
        self._stop(machine, length_s)

    def _suspend_agent(self) -> None:
        machine, _ = self._agent()
        length_s = self._random.random() * self._random.choice([5, 40])
        if machine.alive and not machine.stopped:
            if length_s * 1_000 > self._world.visibility_ms[machine.name]:
                self._world.recorder.rare["a machine slept beyond its leases"] += 1
            machine.sleep()
            self._world.recorder.add(Slept, machine=machine.name)
            self._world.network.later(length_s, partial(self._world.wake, machine))

    def _refuse(self) -> None:
        """A machine is out of processes for a while, or nearly so."""
        machine, _ = self._agent()
        machine.refuses = self._random.choice([1.0, 1.0, 0.5])
        self._world.note(f"{machine.name} refuses processes")
        self._world.network.later(self._random.random() * 20, partial(vars(machine).update, refuses=0.0))

    def _fill_agents_disk(self) -> None:
        machine, _ = self._agent()
        machine.disk_full = True
        self._world.note(f"the disk of {machine.name} is full")
        self._world.network.later(self._random.random() * 15, partial(vars(machine).update, disk_full=False))

    def _stop_agent_as_it_completes(self) -> None:
        """Its command has ended; it wakes when its lease has too."""
        machine, keepers = self._agent()
        length_s = self._world.visibility_ms[machine.name] / 1_000 + self._random.random() * 6
        keepers.trap = partial(self._stop, machine, length_s)

    def _stop_agent_as_it_renews(self) -> None:
        """It hears late that its leases were renewed, and then nothing for long, while a command of it runs on."""
        name, traps = self._random.choice(list(self._world.agents)), self._world.network.traps
        visibility_s = self._world.visibility_ms[name] / 1_000
        length_s = self._random.uniform(0.3, 0.55) * visibility_s  # somewhat later its keepers would end the command
        ways = [way for broker in self._world.brokers.names for way in ((name, broker), (broker, name))]

        def part() -> None:
            self._world.network.parted.update(ways)
            self._world.network.later(20.0, partial(self._join, ways))

        def spring() -> None:
            machine, keepers = self._world.agents[name]
            if not self._world.healed and keepers.busy_until_s < true_s() + visibility_s:
                traps[name] = spring  # at a later heartbeat
            elif not self._world.healed:
                self._stop(machine, length_s)
                self._world.network.later(length_s + 0.01, part)

        traps[name] = spring

    def _kill_user(self) -> None:
        machine = self._world.users[self._random.choice(list(self._world.users))]
        if machine.alive:
            machine.kill()
            self._world.recorder.add(Killed, machine=machine.name)

    def _stop_user(self) -> None:
        """Ctrl-Z: what is sent to it is not read."""
        machine = self._world.users[self._random.choice(list(self._world.users))]
        if machine.alive and not machine.stopped:
            self._world.recorder.rare["a reader was stopped"] += 1
        self._stop(machine, self._random.random() * 20)

    def _stop(self, machine: Machine, length_s: float) -> None:
        if machine.alive and not machine.stopped:
            machine.stop()
            self._world.note(f"{machine.name} is stopped")
            self._world.network.later(length_s, partial(self._world.wake, machine))
