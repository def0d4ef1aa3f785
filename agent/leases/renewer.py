"""Renewer: renews all leases of this agent with heartbeats, and ends the attempts whose lease it cannot renew.

A heartbeat is one UpdateJob request for all leases. An attempt without a renewal is ended shortly before its deadline,
while the lease is still valid, so that two agents never run one job at once (see `heldlease`).

The reply also names the cancelled jobs, and the sizes that terminals are to have. After one or several Nudges from the
broker, the agent sends one heartbeat at once; if a Nudge is lost, the next regular heartbeat learns of the cancel.
"""

from __future__ import annotations

import math
from typing import Final, assert_never

import anyio

from airunner.agent.leases.health import Health
from airunner.agent.leases.heldlease import HeldLease
from airunner.agent.plan import Plan
from airunner.protocol.errors import PeerError
from airunner.protocol.replies import JobLease, Verdict
from airunner.protocol.requests import LEASES_MAX, UpdateJob
from airunner.transport.bell import Bell
from airunner.transport.channel import Channel
from airunner.transport.ports import Edges

RENEWAL_S_MAX: Final = 60.0  # seconds between heartbeats, or a third of the visibility timeout if that is less
RETRY_S: Final = 1.0  # seconds between a heartbeat that the broker refused and the next


class Renewer:
    """Renewer of an agent's leases: it renews each lease from `hold` until `drop`."""

    def __init__(self, channel: Channel, plan: Plan, health: Health, edges: Edges) -> None:
        self._channel = channel
        self._plan = plan
        self._health = health
        self._edges = edges
        health.changed = self.announce
        self._visibility_s = plan.visibility_ms / 1_000
        self._interval_s = min(RENEWAL_S_MAX, self._visibility_s / 3)
        self._held: dict[tuple[str, int], HeldLease] = {}
        self._changed = Bell()
        self._renewal_s = self._end_s = math.inf  # the instants that the two loops wait for
        self._heartbeat_s = -math.inf  # when the last heartbeat was sent, with the machine's trouble
        self._nudged = False  # the broker asks for a heartbeat, if there is a lease
        self._urgent = False  # send a heartbeat now: the trouble has changed, or the last heartbeat was refused

    def hold(self, lease: JobLease, asked_s: float, *, was_queued: bool) -> HeldLease:
        """Renew a lease from now on; `asked_s` is when it was requested (`Edges.boot_s`).

        `was_queued`: its job had waited in its queue by then, and was not submitted to an agent that waited for it.
        """
        assert len(self._held) < LEASES_MAX, "more leases than one heartbeat can renew"
        held = HeldLease(lease, asked_s, self._visibility_s, was_queued=was_queued)
        self._held[held.key] = held
        if asked_s + self._interval_s < self._renewal_s or held.end_s < self._end_s:
            self._changed.ring()  # the lease is due before the instants that the loops wait for
        return held

    def drop(self, held: HeldLease) -> None:
        """Stop renewing a lease: it is settled or lost."""
        self._held.pop(held.key, None)

    @property
    def leases(self) -> int:
        """Number of leases that are held."""
        return len(self._held)

    def nudge(self) -> None:
        """Send a heartbeat at once or, without a lease, as soon as there is one."""
        self._nudged = True
        self._changed.ring()

    def announce(self) -> None:
        """Send a heartbeat at once, even without a lease: the machine's trouble has begun or ended."""
        self._urgent = True
        self._changed.ring()

    async def run(self) -> None:
        """Renew leases and watch their deadlines until cancelled; look at once when the machine wakes from sleep."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._renew)
            group.start_soon(self._watch)
            group.start_soon(self._edges.watch_steps, self._changed.ring)

    async def _renew(self) -> None:
        while True:
            renewed_s = min((held.renewed_s for held in self._held.values()), default=math.inf)
            reported_s = self._heartbeat_s if self._health.trouble else math.inf  # also without a lease
            self._renewal_s = min(renewed_s, reported_s) + self._interval_s
            nudged = self._nudged and self._held
            if nudged or self._urgent or self._renewal_s <= self._edges.boot_s():
                await self._heartbeat()
            else:
                with self._edges.wait_until(self._renewal_s):
                    await self._changed.wait()

    async def _heartbeat(self) -> None:
        self._nudged = self._urgent = False
        asked_s = self._heartbeat_s = self._edges.boot_s()
        heartbeat = list(self._held.values())
        refs = [held.lease.ref for held in heartbeat]
        request = UpdateJob(
            agent=self._plan.name,
            agent_slots=self._plan.slots,
            version=self._plan.version,
            tags=dict(self._plan.tags),
            trouble=self._health.trouble,
            leases=tuple(refs),
            visibility_ms=self._plan.visibility_ms,
        )
        try:
            reply = await self._channel.ask(request)
        except PeerError:
            await anyio.sleep(RETRY_S)  # if the broker goes on refusing, the attempts end at their deadlines
            self._urgent = True
            return
        for held, verdict in zip(heartbeat, reply.leases, strict=True):
            held.resize(verdict.terminal)
            match verdict.verdict:
                case Verdict.KEPT:
                    held.renew(asked_s)
                case Verdict.CANCEL:
                    held.renew(asked_s)
                    held.cancelled.set()
                case Verdict.LOST:
                    self._lose(held)
                case _:
                    assert_never(verdict.verdict)

    async def _watch(self) -> None:
        """Watch the deadlines, and end every attempt whose deadline is near."""
        while True:
            self._end_s = min((held.end_s for held in self._held.values()), default=math.inf)
            with self._edges.wait_until(self._end_s):
                await self._changed.wait()
            now_s = self._edges.boot_s()
            for held in [held for held in self._held.values() if held.end_s <= now_s]:
                self._lose(held)

    def _lose(self, held: HeldLease) -> None:
        self.drop(held)
        held.lost.set()
