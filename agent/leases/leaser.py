"""Leaser: asks the broker for jobs, for all slots of an agent.

```
 cold   each free slot has a request of its own parked: the broker knows of every one, and answers with one message
 warm   what was asked for was granted, so more jobs may wait: one request at a time, for all slots that are free
        by then, and it is not parked; a slot that becomes free meanwhile goes with the next
```

An idle agent starts a job one message after it was submitted, and a busy one asks once for several.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Final

import anyio
import anyio.lowlevel

from airunner.agent.flag import Flag, cancelled_by
from airunner.agent.leases.health import Health
from airunner.agent.leases.heldlease import HeldLease
from airunner.agent.leases.renewer import Renewer
from airunner.agent.leases.settlement import Lost, Released
from airunner.agent.plan import Plan
from airunner.protocol.errors import NotFound, PeerError, StaleToken
from airunner.protocol.names import REQUEST_ID_BYTES, SEED_BYTES, RequestId
from airunner.protocol.reconnect import PATIENCE_MS
from airunner.protocol.replies import JobLease, JobsLeased, Verdict
from airunner.protocol.requests import SLOTS_MAX, WAIT_MS_MAX, DequeueJob, ReleaseJob, UpdateJob
from airunner.transport.channel import Channel
from airunner.transport.ports import Edges

RETURN_S: Final = 5.0  # for ending a parked request at a broker that is connected and slow
GONE_S: Final = 0.3  # a broker that has not come back after so long is not waited for; the first two tries take 0.15 s
STALE_SHARE: Final = 2  # a grant that half of its time has passed on is renewed before it is begun


class Orders:
    """Orders to the agent: with `drain` it leases no more jobs, with `stop` it also ends those that run."""

    def __init__(self) -> None:
        self.drain = Flag()
        self.stop = Flag()


class _Turn:
    """Turn of a free slot of a warm agent; `called` when it is to ask, or another slot has asked for it."""

    def __init__(self) -> None:
        self.called = anyio.Event()
        self.asks = False
        self.held: HeldLease | None = None
        self.failure: PeerError | None = None


class Leaser:
    """Leaser of an agent. It has no task of its own: it works in those of the slots."""

    def __init__(
        self, plan: Plan, channel: Channel, renewer: Renewer, health: Health, edges: Edges, orders: Orders
    ) -> None:
        self._plan = plan
        self._channel = channel
        self._renewer = renewer
        self._health = health
        self._edges = edges
        self._orders = orders
        self._free: deque[_Turn] = deque()
        self._gathering = False  # a slot asks for all that are free: now, or when the last request is answered
        self._warm = False

    async def lease(self) -> HeldLease | None:
        """Return the next lease; None when there was no job in time, after a drain, or when no job can be run here.

        Raises `PeerError`.
        """
        if not self._warm:
            found = await self._leased(1, min(WAIT_MS_MAX, self._plan.visibility_ms // 3))
            self._warm = bool(found)
            return found[0] if found else None
        turn = _Turn()
        self._free.append(turn)
        if self._gathering:
            with cancelled_by(self._orders.drain):
                await turn.called.wait()
        else:
            self._gathering = turn.asks = True
            await anyio.lowlevel.checkpoint()  # for slots that become free in this moment
        if turn.asks:
            await self._ask()
        if turn.failure is not None:
            raise turn.failure
        return turn.held

    async def release(self, lease: JobLease, *, lost: bool = False) -> Released | Lost:
        """Release a lease; with `lost` it counts towards `max_attempts`, as if it had expired."""
        try:
            await self._channel.ask(ReleaseJob(lease=lease.ref, lost=lost))
        except (StaleToken, NotFound):
            return Lost()
        except PeerError as error:
            return Lost(error.message)
        return Released()

    async def _ask(self) -> None:
        """Ask for leases for all free slots, and call those."""
        turns = [self._free.popleft() for _ in range(min(len(self._free), SLOTS_MAX))]
        try:
            found = await self._leased(len(turns), 0)
            self._warm = len(found) == len(turns)
            for turn, held in zip(turns, found, strict=False):
                turn.held = held
        except PeerError as failure:
            self._warm = False
            for turn in turns:
                turn.failure = failure
        finally:
            self._call(turns)

    def _call(self, turns: list[_Turn]) -> None:
        """Call the slots that were asked for, and the next slot to ask, or all others when the agent has got cold."""
        self._gathering = self._warm and bool(self._free)
        if self._gathering:
            self._free[0].asks = True
            turns.append(self._free[0])
        else:
            turns += self._free
            self._free.clear()
        for turn in turns:
            turn.called.set()

    async def _leased(self, slots: int, wait_ms: int) -> list[HeldLease]:
        """Ask for at most `slots` leases, which are renewed from now on. Raises `PeerError`."""
        request_id = RequestId(self._edges.random_bytes(REQUEST_ID_BYTES))
        seed = self._edges.random_bytes(SEED_BYTES)
        asked_s = self._edges.boot_s()
        reply: JobsLeased | None = None
        with cancelled_by(self._orders.drain, self._health.closed):
            reply = await self._dequeue(request_id, seed, slots, wait_ms)
        if reply is None:
            with cancelled_by(self._orders.stop, timeout_s=RETURN_S):
                await self._return_parked(request_id, seed, slots)
            return []
        leases = list(reply.leases)
        while leases and self._edges.boot_s() - asked_s > self._plan.visibility_ms / 1_000 / STALE_SHARE:
            # It was asked for again and again while the broker was away: it has to be renewed before it is begun.
            asked_s = self._edges.boot_s()
            leases = await self._kept(leases)
        return [self._renewer.hold(lease, asked_s) for lease in leases]

    async def _kept(self, leases: list[JobLease]) -> list[JobLease]:
        """Renew leases before their jobs are begun, and return those that are still ours."""
        refs = [lease.ref for lease in leases]
        reply = await self._channel.ask(UpdateJob(leases=tuple(refs), visibility_ms=self._plan.visibility_ms))
        return [
            lease for lease, renewal in zip(leases, reply.leases, strict=True) if renewal.verdict is not Verdict.LOST
        ]

    async def _dequeue(self, request_id: RequestId, seed: bytes, slots: int, wait_ms: int) -> JobsLeased:
        request = DequeueJob(
            agent=self._plan.name,
            agent_slots=self._plan.slots,
            version=self._plan.version,
            tags=dict(self._plan.tags),
            queues=self._plan.queues,
            slots=slots,
            visibility_ms=self._plan.visibility_ms,
            wait_ms=wait_ms,
            token_seed=seed,
        )
        return await self._channel.ask(request, request_id=request_id, patience_ms=wait_ms + PATIENCE_MS)

    async def _return_parked(self, request_id: RequestId, seed: bytes, slots: int) -> None:
        """Repeat the parked request without a wait, which ends the parking, and release what it was granted.

        What a broker that has gone had granted meanwhile waits for the visibility timeout.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_when_gone, group.cancel_scope)
            with suppress(PeerError):  # a refused request is parked no more
                reply = await self._dequeue(request_id, seed, slots, 0)
                for lease in reply.leases:
                    await self.release(lease)
            group.cancel_scope.cancel()

    async def _cancel_when_gone(self, scope: anyio.CancelScope) -> None:
        await self._channel.gone(GONE_S)
        scope.cancel()
