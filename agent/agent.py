"""Agent: runs its slots, the EventPublisher and the Renewer over one channel.

Every edge is handed in. It runs until it is told to drain and its slots are done.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from airunner.agent.attempt.attempt import Surroundings
from airunner.agent.attempt.slot import Slot
from airunner.agent.checkout.mirrors import remove_unfinished
from airunner.agent.leases.health import Health
from airunner.agent.leases.leaser import Leaser, Orders
from airunner.agent.leases.occupancy import Occupancy
from airunner.agent.leases.probes import Probes
from airunner.agent.leases.renewer import Renewer
from airunner.agent.output.publisher import EventPublisher
from airunner.agent.output.recovery import recover
from airunner.agent.output.spool import SPOOL_FOLDER, spools_in
from airunner.agent.output.spoolroom import SpoolRoom
from airunner.agent.plan import Plan
from airunner.agent.workspace.jobuser import JobUsers
from airunner.agent.workspace.workspace import remove_workspaces
from airunner.agent.workspace.workspaces import Workspaces
from airunner.protocol.requests import Ping
from airunner.transport.channel import Channel
from airunner.transport.ports import Edges


class Agent:
    """Agent that `plan` describes."""

    def __init__(
        self, plan: Plan, channel: Channel, surroundings: Surroundings, edges: Edges, report: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._channel = channel
        self._report = report
        self._surroundings = surroundings
        self._edges = edges
        self.orders = Orders()

    async def run(self) -> None:
        """Run jobs until `orders.drain` is set and running jobs have ended, or the plan's jobs are done."""
        publisher = EventPublisher(self._channel, self._edges, self._report, SpoolRoom(self._plan.spool_bytes_max))
        probes = Probes(self._surroundings.launcher, self._plan.home)
        health = Health(probes, self._edges.random, self._report)
        renewer = Renewer(self._channel, self._plan, health, self._edges)
        leaser = Leaser(self._plan, self._channel, renewer, health, self._edges, self.orders)
        workspaces = Workspaces(self._plan.home, JobUsers(self._surroundings.users))
        occupancy = Occupancy()
        self._channel.nudged = renewer.nudge
        home = self._plan.home
        for leftover in await self._surroundings.offload(lambda: [*remove_workspaces(home), *remove_unfinished(home)]):
            self._report(f"could not remove {leftover.path}: {leftover.why}")
        left = spools_in(self._plan.home / SPOOL_FOLDER)
        async with anyio.create_task_group() as background:
            await background.start(self._channel.run)
            background.start_soon(recover, left, self._channel, self._edges, self._report)
            background.start_soon(self._greet)
            background.start_soon(publisher.run)
            background.start_soon(renewer.run)
            background.start_soon(health.run)
            background.start_soon(self._leave_when_idle, occupancy)
            async with anyio.create_task_group() as slots:
                for _ in range(self._plan.slots):
                    slot = Slot(
                        self._plan,
                        leaser,
                        publisher,
                        renewer,
                        workspaces,
                        self._surroundings,
                        self._edges,
                        self.orders,
                        occupancy,
                        health,
                        self._report,
                    )
                    slots.start_soon(slot.run)
            background.cancel_scope.cancel()
        workspaces.close()

    async def _leave_when_idle(self, occupancy: Occupancy) -> None:
        if self._plan.idle_s_max is not None:
            await occupancy.idle_for(self._plan.idle_s_max)
            self._report(f"no job for {self._plan.idle_s_max:g} s: leaving")
            self.orders.drain.set()

    async def _greet(self) -> None:
        """Report when the broker was first heard."""
        await self._channel.ask(Ping())
        queues = ", ".join(self._plan.queues)
        self._report(
            f"airunner agent ready: {self._plan.name}, {self._plan.slots} slots, queues {queues}, "
            f"broker {self._channel.endpoint}"
        )
