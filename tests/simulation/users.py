"""Simulated people: they submit, cancel, retry, pause and watch, through the real client.

What they want is drawn before it is asked for and remembered outside of their machine, as people do: one whose
command was killed before it was answered gives it again, under the same request id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random
from typing import TYPE_CHECKING, Final

import anyio
from msgspec.structs import replace

from airunner.client.client import Client
from airunner.protocol.dependencies import Dependency, Ending
from airunner.protocol.errors import PeerError
from airunner.protocol.expiry import Expiry
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, JobSummary
from airunner.protocol.jobretry import RetryOn, RetryPolicy
from airunner.protocol.names import RequestId
from airunner.protocol.replies import QueueMode
from tests.simulation.evidence import CALM_AFTER_MS
from tests.simulation.history import Acknowledged, FollowEnded, Invoked, Monitored
from tests.simulation.machine import Machine
from tests.simulation.processes import Script, stdin_of
from tests.simulation.tags import LINUX

if TYPE_CHECKING:
    from tests.simulation.world import World

WISHES: Final = 14
LATE_WISHES: Final = 5
AFTER_OF_256: Final = 64  # jobs of 256 that wait for others
ENDINGS: Final = tuple(Ending)


class Wish:
    """One thing that somebody wants of the broker, under one request id however often it is asked."""

    def __init__(self, random: Random, wall_ms: int) -> None:
        self.request_id = RequestId(random.randbytes(16))
        self.kind = random.choices(["enqueue", "cancel", "retry", "queue"], [8, 3, 1, 1])[0]
        self.pause_s = random.random() * random.choice([0.1, 2.0, 6.0])
        self.jobs = tuple(drawn_job(random, wall_ms) for _ in range(random.choice([1, 1, 2, 4])))
        self.stdin = stdin_of(self.jobs[0].args[0]) if len(self.jobs) == 1 and self.request_id[0] % 2 else b""
        if self.stdin:
            self.jobs = (replace(self.jobs[0], stdin_bytes=len(self.stdin)),)
        self.queue = random.choice(["default", "slow"])
        self.mode = random.choice([QueueMode.PAUSED, QueueMode.DRAINING])
        self.luck = random.random()
        self.target: str | None = None
        self.invoked = False


def drawn_job(random: Random, wall_ms: int) -> JobSpec:
    """A job with some of everything that jobs may have."""
    retry = None
    if random.random() < 0.3:
        on = RetryOn(exit_codes=(7,), signals=(6,)) if random.random() < 0.5 else None
        retry = RetryPolicy(limit=random.choice([1, 3]), backoff_ms=random.choice([0, 500, 4_000]), on=on)
    return JobSpec(
        command="script",
        args=Script.drawn(random).words(),
        queue=random.choice(["default", "default", "slow"]),
        priority=random.choice([0, 0, 0, -100, 5, 100]),
        not_before_ms=wall_ms + random.randrange(30_000) if random.random() < 0.15 else None,
        expires=Expiry(after_ms=random.randrange(1, 20_000)) if random.random() < 0.15 else None,
        max_attempts=random.choice([1, 2, 3, 3]),
        timeout_seconds=random.choice([None, None, 3]),
        retry=retry,
        owner=random.choice(["", "ada"]),
        metadata={"wish": random.randbytes(8).hex()},  # no two jobs are the same
        require=random.choice([{}, {}, {}, LINUX]),
    )


class Submitter:
    """Somebody with a list of wishes."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self._world = world
        self._wishes = [Wish(world.random, world.wall_ms(index * 4.0)) for index in range(WISHES)]

    async def run(self, machine: Machine) -> None:
        """Ask for one thing after the other, on this machine as long as it lives."""
        async with self._world.client(machine) as client:
            while self._wishes:
                wish = self._wishes[0]
                await anyio.sleep(wish.pause_s)  # virtual
                try:
                    await self._ask(client, wish)
                except PeerError as error:
                    self._world.note(f"{self.name}: {wish.kind} is refused: {error.code}")
                self._wishes.pop(0)

    async def _ask(self, client: Client, wish: Wish) -> None:
        if wish.kind == "enqueue" and not wish.invoked:
            self._wait_for_others(wish)
        if wish.kind in ("cancel", "retry") and wish.target is None:
            if not self._world.job_ids:
                return
            wish.target = self._world.job_ids[int(wish.luck * len(self._world.job_ids))]
        add = self._world.recorder.add
        common = {"machine": self.name, "request_id": bytes(wish.request_id), "kind": wish.kind}
        if wish.invoked:
            self._world.recorder.rare["a request of a killed client asked again"] += 1
        else:
            add(
                Invoked,
                **common,
                jobs=wish.jobs if wish.kind == "enqueue" else (),
                job_id=wish.target,
                queue=wish.queue if wish.kind == "queue" else None,
                mode=str(wish.mode) if wish.kind == "queue" else None,
            )
        wish.invoked = True
        match wish.kind:
            case "enqueue":
                if wish.stdin:
                    jobs = [await client.submit(wish.jobs[0], stdin=wish.stdin, request_id=wish.request_id)]
                else:
                    jobs = await client.submit_many(wish.jobs, request_id=wish.request_id)
                self._world.job_ids += [job.id for job in jobs]
                add(Acknowledged, **common, job_ids=tuple(job.id for job in jobs))
            case "cancel":
                assert wish.target is not None
                state = await client.cancel(wish.target)
                add(Acknowledged, **common, state=state)
                if state is JobState.RUNNING:
                    self._world.recorder.rare["a running job was cancelled"] += 1
            case "retry":
                assert wish.target is not None
                job = await client.retry(wish.target, request_id=wish.request_id)
                self._world.job_ids.append(job.id)
                add(Acknowledged, **common, job_ids=(job.id,))
            case _:
                await client.update_queue(wish.queue, wish.mode)
                add(Acknowledged, **common)
                await anyio.sleep(wish.luck * 5)  # virtual
                await open_queue(self._world, self.name, client, wish.queue)

    def _wait_for_others(self, wish: Wish) -> None:
        """Have one job in four of these wait for up to three others, each of which has to end in some way."""
        known = self._world.job_ids
        for place, job in enumerate(wish.jobs):
            chosen = wish.request_id[2 + place]
            if known and chosen < AFTER_OF_256:
                picked = {known[(chosen * step) % len(known)]: ENDINGS[(chosen + step) % 3] for step in (1, 5, 7)}
                self._world.recorder.rare["a job waits for others"] += 1
                after = tuple(str(Dependency(*pair)) for pair in list(picked.items())[: 1 + chosen % 3])
                wish.jobs = (*wish.jobs[:place], replace(job, after=after), *wish.jobs[place + 1 :])


class Operator(Submitter):
    """Somebody who submits jobs to a queue, and pauses it at once."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        for number, wish in enumerate(self._wishes):
            wish.kind = "queue" if number % 2 else "enqueue"
            if number % 2:
                wish.mode, wish.pause_s, wish.queue = QueueMode.PAUSED, wish.pause_s * 0.02, wish.jobs[0].queue
            elif not wish.stdin:
                queue = self._wishes[number + 1].jobs[0].queue
                wish.jobs = tuple(replace(job, queue=queue, not_before_ms=None) for job in wish.jobs * 2)


class LateSubmitter(Submitter):
    """Somebody who submits when all is well again, and not much else happens."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._wishes = self._wishes[:LATE_WISHES]
        for wish in self._wishes:
            wish.kind, wish.pause_s = "enqueue", 1.0 + 3.0 * wish.luck

    async def run(self, machine: Machine) -> None:
        await self._world.is_healed.wait()
        await anyio.sleep(CALM_AFTER_MS / 1_000)  # virtual
        await super().run(machine)


async def open_queue(world: World, name: str, client: Client, queue: str) -> None:
    """Have a queue lease and take jobs again."""
    common = {"machine": name, "request_id": world.random.randbytes(16), "kind": "queue"}
    world.recorder.add(Invoked, **common, queue=queue, mode=str(QueueMode.OPEN))
    await client.update_queue(queue, QueueMode.OPEN)
    world.recorder.add(Acknowledged, **common)


async def all_jobs(client: Client) -> AsyncIterator[JobSummary]:
    """Every job of the tenant, the newest first."""
    before: str | None = None
    while True:
        page = await client.list_page(before=before, page_size=100)
        for job in page.jobs:
            yield job
        if not page.more:
            return
        before = page.jobs[-1].id


class Monitor:
    """Somebody who follows jobs to their end, and goes on where he was when his machine was killed."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self._world = world
        self._follows = 0
        self.job_id: str | None = None
        self._next = 1

    async def run(self, machine: Machine) -> None:
        """Follow one job after the other until there is no more work to come."""
        async with self._world.client(machine) as client:
            while not (self._world.healed and self.job_id is None):
                if self.job_id is None:
                    if not self._world.job_ids:
                        await anyio.sleep(0.5)  # virtual
                        continue
                    self.job_id, self._next = self._world.random.choice(self._world.job_ids[-8:]), 1
                try:
                    await self._follow(client, self.job_id)
                except PeerError as error:  # a law says whether that may be
                    self._world.note(f"{self.name}: {self.job_id} cannot be followed: {error.code}")
                self.job_id = None
                await anyio.sleep(self._world.random.random() * 4)  # virtual

    async def _follow(self, client: Client, job_id: str) -> None:
        self._follows += 1
        monitor = f"{self.name}.{self._follows}"
        first = self._next
        if first > 1:
            self._world.recorder.rare["a monitor resumed in mid-stream"] += 1
        async with client.follow(job_id, first) as events:
            async for event in events:
                self._next = event.sequence + 1
                self._world.recorder.add(Monitored, monitor=monitor, job_id=job_id, from_sequence=first, event=event)
        self._world.recorder.add(FollowEnded, monitor=monitor, job_id=job_id, from_sequence=first)
