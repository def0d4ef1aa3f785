"""Leaser: requests jobs from the broker, for all slots of an agent.

```
 cold   each free slot parks a request of its own at the broker, which answers when there is a job
 warm   the last request was granted in full, and no slot is parked, so more jobs may be waiting: one request at a time
        for all slots that are free then, not parked; a slot that becomes free during a request joins the next one,
        and a request waits a moment for slots that may become free too
```

So an idle agent gets a job with one message after it was submitted, and a busy agent gets several with one request.
An agent of one slot always parks its request.
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
from airunner.agent.leases.stdin import read_stdin
from airunner.agent.output.publisher import EventPublisher
from airunner.agent.plan import Plan
from airunner.protocol.errors import NotFound, PeerError, StaleToken
from airunner.protocol.musts import MUST_KNOW
from airunner.protocol.names import SEED_BYTES, RequestId
from airunner.protocol.replies import JobLease, JobsLeased, Verdict
from airunner.protocol.requests import SLOTS_MAX, DequeueJob, ReleaseJob, UpdateJob
from airunner.transport.bell import Bell
from airunner.transport.channel import Channel
from airunner.transport.ports import Edges

RETURN_S: Final = 5.0  # seconds to wait for a connected broker to end a parked request
GONE_S: Final = 0.3  # seconds to wait for a lost broker to come back; two reconnects are tried in 0.15 s
PARKED_MS_MAX: Final = 15_000  # a broker that is gone is noticed some seconds later, since no Pings are sent meanwhile
WAIT_SPREAD: Final = 4  # a request is parked for up to a fourth less than the longest wait
GATHER_S: Final = 0.002  # wait for more free slots: short jobs that began together end together, and share requests
STALE_SHARE: Final = 2  # a lease is renewed before its job begins if half of its visibility timeout has passed


class Orders:
    """Orders to the agent: after `drain` it leases no more jobs, after `stop` it also ends the running ones."""

    def __init__(self) -> None:
        self.drain = Flag()
        self.stop = Flag()


class _Turn:
    """Turn of a free slot: `called` is set when the slot is to send the request (`asks`), or has its result."""

    def __init__(self) -> None:
        self.called = anyio.Event()
        self.asks = False
        self.held: HeldLease | None = None
        self.failure: PeerError | None = None


class Leaser:
    """Leaser of an agent. It has no task of its own: the tasks of the slots run it."""

    def __init__(
        self,
        plan: Plan,
        channel: Channel,
        publisher: EventPublisher,
        renewer: Renewer,
        health: Health,
        edges: Edges,
        orders: Orders,
    ) -> None:
        self._plan = plan
        self._channel = channel
        self._publisher = publisher
        self._renewer = renewer
        self._health = health
        self._edges = edges
        self._orders = orders
        self._free: deque[_Turn] = deque()
        self._joined = Bell()  # rings when a slot has become free
        self._gathering = False  # a slot sends the request for all free slots, or will when the last one is answered
        self._warm = False  # the last request was granted in full
        self._parked = 0  # requests that wait at the broker, so that no job waits there

    async def lease(self) -> HeldLease | None:
        """Return the next lease; None: there was no job in time, the agent drains, or this machine is in trouble.

        Raises `PeerError`.
        """
        if not self._warm or self._parked or self._plan.slots == 1:
            self._parked += 1
            try:
                found = await self._leased(1, self._wait_ms())
            finally:
                self._parked -= 1
            self._warm = bool(found)
            return found[0] if found else None
        turn = _Turn()
        self._free.append(turn)
        self._joined.ring()
        if self._gathering:
            with cancelled_by(self._orders.drain):
                await turn.called.wait()
        else:
            self._gathering = turn.asks = True
        if turn.asks:
            await self._ask()
        if turn.failure is not None:
            raise turn.failure
        return turn.held

    async def release(self, lease: JobLease, *, lost: bool = False) -> Released | Lost:
        """Release a lease; with `lost` the attempt counts towards `max_attempts`, as after an expiry."""
        try:
            await self._channel.ask(ReleaseJob(lease=lease.ref, lost=lost))
        except (StaleToken, NotFound):
            return Lost()
        except PeerError as error:
            return Lost(error.message)
        return Released()

    async def read_stdin(self, lease: JobLease) -> bytes:
        """Read the standard input of a leased job, if it has one. Raises `PeerError`."""
        return await read_stdin(self._channel, lease)

    def _wait_ms(self) -> int:
        """Draw how long to park a request: agents that were all started at once do not ask at once for ever."""
        most_ms = min(PARKED_MS_MAX, self._plan.visibility_ms // 3)
        return int(most_ms * (1 - self._edges.random() / WAIT_SPREAD))

    async def _ask(self) -> None:
        """Request leases for all slots that are free within `GATHER_S`, at most `SLOTS_MAX`, and wake these slots."""
        with anyio.move_on_after(GATHER_S):
            while len(self._free) < self._plan.slots:
                await self._joined.wait()
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
        """Wake the slots of a request, and the slot that sends the next; or all free slots if the agent is cold now."""
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
        """Request at most `slots` leases, and have them renewed from now on. Raises `PeerError`."""
        request_id = self._edges.new_request_id()
        seed = self._edges.random_bytes(SEED_BYTES)
        asked_s = self._edges.boot_s()
        reply: JobsLeased | None = None
        with cancelled_by(self._orders.drain, self._health.closed):
            reply = await self._dequeue(request_id, seed, slots, wait_ms)
        if reply is None:
            with anyio.move_on_after(RETURN_S):
                await self._return_parked(request_id, seed, slots)
            return []
        leases = list(reply.leases)
        while leases and self._edges.boot_s() - asked_s > self._plan.visibility_ms / 1_000 / STALE_SHARE:
            # The request was repeated while the broker was away: renew the leases before their jobs begin.
            asked_s = self._edges.boot_s()
            leases = await self._renewed(leases)
        was_queued = reply.queued or not wait_ms  # an older broker does not say
        return [self._renewer.hold(lease, asked_s, was_queued=was_queued) for lease in leases]

    async def _renewed(self, leases: list[JobLease]) -> list[JobLease]:
        """Renew leases, and return those that this agent still has."""
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
            stdin=True,
            knows=MUST_KNOW,
        )
        self._publisher.wake()
        await anyio.lowlevel.checkpoint()  # it sends the results of short jobs now: the broker takes both together
        return await self._channel.ask(request, request_id=request_id, wait_ms=wait_ms)

    async def _return_parked(self, request_id: RequestId, seed: bytes, slots: int) -> None:
        """Withdraw a parked request: repeat it with a wait of 0, and release the leases that it was granted.

        If the broker is gone, leases that it had granted expire after the visibility timeout.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_when_gone, group.cancel_scope)
            with suppress(PeerError):  # a refused request is not parked any more
                reply = await self._dequeue(request_id, seed, slots, 0)
                for lease in reply.leases:
                    await self.release(lease)
            group.cancel_scope.cancel()

    async def _cancel_when_gone(self, scope: anyio.CancelScope) -> None:
        await self._channel.gone(GONE_S)
        scope.cancel()
