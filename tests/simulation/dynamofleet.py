"""A fleet of brokers on a simulated DynamoDB: the engine of the product, whose calls go over a network of faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeVar

import anyio
import trio

from airunner.broker.aws.opening import Bells, Lines
from airunner.broker.store.contract import Engine, Fenced, Identity, StoreAway
from airunner.broker.store.dynamodb.items import read_job
from airunner.broker.store.dynamodb.opening import open_table
from airunner.broker.store.dynamodb.table import Edges
from airunner.broker.store.rows import JobRow
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError
from airunner.protocol.job import JobState
from airunner.protocol.replies import QueueMode
from tests.simulation.baton import Baton
from tests.simulation.dynamodb.cloud import NAME, Cloud
from tests.simulation.dynamodb.expressions import Item
from tests.simulation.dynamodb.server import Written
from tests.simulation.dynamodb.table import FED_LATE_S
from tests.simulation.dynamofaults import DynamoFaults
from tests.simulation.faults import Faults
from tests.simulation.fleet import Fleet
from tests.simulation.history import Committed, LateIndexes
from tests.simulation.machine import Machine
from tests.simulation.tickets import SimLine, SimQueue

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")


class SimEdges(Edges):
    """Edges of an engine in the simulation: its calls are made one after the other, in any order."""

    def __init__(self, random: Random, thread: Baton, steady_s: Callable[[], float]) -> None:
        self.random = random
        self._thread = thread
        self._steady_s = steady_s

    def pause(self, seconds: float) -> None:
        self._thread.wait(partial(anyio.sleep, seconds))  # virtual

    def steady_s(self) -> float:
        return self._steady_s()

    def run_all(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        order = list(range(len(calls)))
        self.random.shuffle(order)
        done = {number: calls[number]() for number in order}
        return [done[number] for number in range(len(calls))]

    def close(self) -> None:
        """No thread is running."""


class DynamoFleet(Fleet):
    """A fleet on the simulated DynamoDB."""

    late_s = FED_LATE_S

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.cloud = Cloud(world.network)
        self.cloud.server.on_commit = self._committed
        self.tickets = SimQueue(world.network)
        self._said_late = False

    async def opened(self, machine: Machine, thread: Baton, identity: Identity) -> Engine:
        if not self._said_late:
            self._said_late = True
            self.world.recorder.add(LateIndexes, late_ms=int(FED_LATE_S * 1_000))
        clock = trio.lowlevel.current_clock()  # the world stands still when the thread reads it
        offset_ms = self.world.wall_ms(0) + self.offsets_ms[machine.name]
        edges = SimEdges(Random(self.world.random.getrandbits(64)), thread, clock.current_time)
        client = self.cloud.client(machine, thread)

        def opened() -> Engine:
            wall_ms = partial(_wall_ms, clock.current_time, offset_ms)
            return open_table(client, NAME, identity, wall_ms, edges, announces=False)

        try:
            return await thread.get(opened)
        except OperatorError as error:
            if error.exit_code != EXIT_UNAVAILABLE:
                raise
            raise StoreAway(str(error)) from error

    def lines(self, machine: Machine) -> Lines:
        return Lines(bells=Bells(SimLine(self.tickets, machine), SimLine(self.tickets, machine)))

    def judge(self, crashed: BaseException) -> None:
        if isinstance(crashed, BaseExceptionGroup):
            for each in crashed.exceptions:
                self.judge(each)
            return
        assert isinstance(crashed, OperatorError), f"a broker has ended by a fault of its own: {crashed!r}"
        self.world.recorder.rare["a broker that was taken for dead was fenced"] += isinstance(crashed, Fenced)

    def faults(self) -> Faults:
        return DynamoFaults(self.world, self.cloud)

    def store_down(self, machine: Machine, *, power: bool) -> None:
        """What it has sent is on its way."""

    def heal(self) -> None:
        self.cloud.heal()
        super().heal()

    def _committed(self, written: Sequence[Written]) -> None:
        """Write down what is visible from now on; beats and counts alone are nothing that a law is about."""
        if not any(_is_told(before or after) for before, after in written):
            return
        jobs = [(_row(before), _row(after)) for before, after in written if _is_job(before or after)]
        rows = [(before, after) for before, after in jobs if after is not None]
        rare = self.world.recorder.rare
        rare["a broker adopted another's jobs"] += any(
            before is not None and before.deadline_ms is not None and before.broker != after.broker
            for before, after in rows
        )
        running = [(before, after) for before, after in rows if before is not None and before.state == JobState.RUNNING]
        self.world.recorder.add(
            Committed,
            place=0,
            broker=self.cloud.broker,
            answered=tuple(
                bytes.fromhex(after["pk"]["S"].split("#")[2])
                for before, after in written
                if before is None and after is not None and after["pk"]["S"].startswith("R#")
            ),
            leased=tuple(
                (after.job_id, after.attempt, after.lease_request or b"")
                for before, after in rows
                if after.attempt > (0 if before is None else before.attempt)
            ),
            ended=tuple(
                (before.job_id, before.attempt)
                for before, after in running
                if (after.settled, after.attempt) != (None, before.attempt)
            ),
            ready=tuple(after.job_id for _, after in rows if not after.gate),
            unready=tuple(
                after.job_id for before, after in rows if after.gate and before is not None and not before.gate
            ),
            modes=tuple(mode for before, after in written for mode in _modes(before, after)),
        )


def _wall_ms(steady_s: Callable[[], float], offset_ms: int) -> int:
    """A machine's wall clock."""
    return offset_ms + int(steady_s() * 1_000)


def _is_told(item: Item | None) -> bool:
    """Whether it is a job, an answer to a request, or the mode of a queue."""
    return item is not None and (item["pk"]["S"][:2] in ("J#", "R#") or item["sk"]["S"].startswith("Q#"))


def _is_job(item: Item | None) -> bool:
    return item is not None and item["pk"]["S"].startswith("J#") and item["sk"]["S"] == "0"


def _row(item: Item | None) -> JobRow | None:
    return None if item is None else read_job(item).row


def _modes(before: Item | None, after: Item | None) -> list[tuple[str, str]]:
    """The queue whose mode has changed, and what it is now."""
    item = after or before
    if item is None or not (item["pk"]["S"].startswith("T#") and item["sk"]["S"].startswith("Q#")):
        return []
    return [(item["sk"]["S"].removeprefix("Q#"), str(QueueMode.OPEN) if after is None else after["mode"]["S"])]
