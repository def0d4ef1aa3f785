"""Agent: runs its slots, the EventPublisher and the Renewer over one channel to the broker.

Clock, randomness and network are passed in. The agent ends when all its slots have ended.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
from msgspec import Struct, field

from airunner.agent.artifacts.uploading import Uplink
from airunner.agent.attempt.slot import Slot
from airunner.agent.attempt.surroundings import Surroundings
from airunner.agent.caches.shelf import remove_unused
from airunner.agent.checkout.mirrors import remove_unfinished
from airunner.agent.leases.attemptcounts import AttemptCounts
from airunner.agent.leases.health import Health
from airunner.agent.leases.leaser import Leaser, Orders
from airunner.agent.leases.occupancy import Occupancy
from airunner.agent.leases.probes import Probes
from airunner.agent.leases.renewer import Renewer
from airunner.agent.metrics import AgentMetrics
from airunner.agent.output.logsigning import Signer
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
from airunner.transport.http import HttpServer
from airunner.transport.ports import Edges


class Agent(Struct, frozen=True):
    """Agent with the options in `plan`."""

    plan: Plan
    channel: Channel
    surroundings: Surroundings
    edges: Edges
    report: Callable[[str], None]
    orders: Orders = field(default_factory=Orders)
    http: HttpServer | None = None  # serves the agent's pages; None: nothing does
    signer: Signer | None = None  # signs the logs of attempts; None: nothing does

    async def run(self) -> None:
        """Run jobs until `orders.drain` is set and running jobs have ended, or each slot has run `jobs_max` jobs."""
        home = self.plan.home
        publisher = EventPublisher(self.channel, self.edges, self.report, SpoolRoom(self.plan.spool_bytes_max))
        probes = Probes(self.surroundings.launcher, home)
        health = Health(probes, self.edges.random, self.report)
        renewer = Renewer(self.channel, self.plan, health, self.edges)
        leaser = Leaser(self.plan, self.channel, publisher, renewer, health, self.edges, self.orders)
        bases = self.surroundings.bases
        workspaces = Workspaces(home, JobUsers(self.surroundings.users), bases)
        occupancy, counts = Occupancy(), AttemptCounts()
        metrics = AgentMetrics(self.plan, self.channel, occupancy, counts, renewer, health, publisher.room)
        self.channel.nudged = renewer.nudge
        for leftover in await self.surroundings.offload(
            lambda: [*remove_workspaces(home, bases), *remove_unfinished(home), *remove_unused(home)]
        ):
            self.report(f"could not remove {leftover.path}: {leftover.why}; remove it by hand")
        spools = home / SPOOL_FOLDER
        left = spools_in(spools)
        async with anyio.create_task_group() as background:
            await background.start(self.channel.run)
            background.start_soon(recover, left, self.channel, self.edges, self.report)
            background.start_soon(self._greet)
            background.start_soon(publisher.run)
            background.start_soon(renewer.run)
            background.start_soon(health.run)
            background.start_soon(self._leave_when_idle, occupancy)
            if self.http is not None:
                background.start_soon(self.http.run, metrics.pages())
            slot = Slot(
                plan=self.plan,
                spools=spools,
                leaser=leaser,
                publisher=publisher,
                renewer=renewer,
                workspaces=workspaces,
                uplink=Uplink(self.channel, self.surroundings.offload, self.edges.random),
                surroundings=self.surroundings,
                edges=self.edges,
                orders=self.orders,
                occupancy=occupancy,
                counts=counts,
                health=health,
                report=self.report,
                signer=self.signer,
            )
            try:
                async with anyio.create_task_group() as slots:
                    for _ in range(self.plan.slots):
                        slots.start_soon(slot.run)
            finally:
                workspaces.close()
            background.cancel_scope.cancel()

    async def _leave_when_idle(self, occupancy: Occupancy) -> None:
        if self.plan.idle_s_max is not None:
            await occupancy.idle_for(self.plan.idle_s_max)
            self.report(f"no job for {self.plan.idle_s_max:g} s: the agent ends (--disconnect-after-idle)")
            self.orders.drain.set()

    async def _greet(self) -> None:
        """Report that the agent is ready, after the broker's first reply."""
        await self.channel.ask(Ping())
        queues = ", ".join(self.plan.queues)
        self.report(
            f"airunner agent ready: {self.plan.name}, {self.plan.slots} slots, queues {queues}, "
            f"broker {self.channel.endpoint}{'' if self.http is None else f', http {self.http.address}'}"
        )
