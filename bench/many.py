"""Many agents: what 2,000 idle agents cost a broker, how soon one of them has a job, and how they all come back.

The broker is restarted while one client submits at a steady rate and others connect to submit one job each: what they
wait for meanwhile is compared with that before. See `fleet` for the agents.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Final, NamedTuple

import anyio
from msgspec import Struct

from airunner.protocol.fields import JobSpec
from airunner.protocol.requests import EnqueueJob
from airunner.transport.channel import Channel
from bench.cluster import Cluster, connected, free_port, new_home, running, token
from bench.figures import Bound, Figure, Reading, Sample
from bench.fleet import fleets, started
from bench.group import Group, Round
from bench.processortime import processor_s
from bench.product import Product, own

AGENTS: Final = 2_000
BEFORE: Final = "before the broker's restart"
FIGURES: Final = (
    Figure("broker's memory", "MiB", Bound.MOST, offset=250, of="the same broker without an agent"),
    Figure("broker's share of a core", "%", Bound.MOST, offset=3),
    Figure("submit to start", "ms", Bound.MOST, offset=5),
    Figure("all are back", "s", Bound.MOST, offset=10),
    Figure("submit meanwhile, median", "ms", Bound.MOST, 2, of=BEFORE),
    Figure("submit meanwhile, p90", "ms", Bound.MOST, 2, of=BEFORE),
    Figure("connect meanwhile, median", "ms", Bound.MOST, 2, of=BEFORE),
    Figure("connect meanwhile, p90", "ms", Bound.MOST, 2, of=BEFORE),
)
IDLE_S: Final = 30.0  # for which the idle broker is measured
STARTS: Final = 100  # jobs submitted one by one, to be started by parked agents
STEADY_PER_S: Final = 20  # jobs a second of the client that submits while the agents come back
STEADY_S: Final = 5.0  # for which that client is measured before
WAIT_S_MAX: Final = 60.0  # for all agents to come (back), after which the measurement fails
ARRIVALS_PER_S: Final = 5  # clients a second that connect meanwhile, as a command does
LOOK_S: Final = 0.1  # between two looks at the broker's counters
UNSERVED: Final = "unserved"  # a queue that no agent serves


class Measured(Struct, frozen=True):
    """Measurements of a broker with many idle agents."""

    memory_mib: float  # of the broker and its relay, with all agents parked
    empty_mib: float  # the same without any agent
    core_share: float  # processor time a second of the idle broker
    started_ms: tuple[float, ...]  # from before a submission until the agent was told, each
    return_s: float  # from the restarted broker's ready line until all agents are parked again
    steady_ms: tuple[float, ...]  # of submissions before the restart
    meanwhile_ms: tuple[float, ...]  # of those while the agents came back
    steady_arrivals_ms: tuple[float, ...]  # of new clients' connections and first submissions before the restart
    arrivals_ms: tuple[float, ...]  # of those while the agents came back


class Submitted(NamedTuple):
    """Submission of one job: when it was sent, and when it was answered, on the steady clock."""

    job_id: str
    sent_s: float
    answered_s: float

    @property
    def taken_ms(self) -> float:
        """Milliseconds until the answer."""
        return (self.answered_s - self.sent_s) * 1_000


class Broker:
    """Broker process that can be started again, with the same home and ports."""

    def __init__(self, home: Path) -> None:
        self._home = home
        requests, events, self._http = (free_port() for _ in range(3))
        self.endpoint = f"tcp://127.0.0.1:{requests}"
        self._command = ["broker", "--listen", self.endpoint, "--events", f"tcp://127.0.0.1:{events}"]
        self._command += ["--http", f"127.0.0.1:{self._http}"]
        self._process = ExitStack()
        self.pid = 0

    def start(self) -> None:
        """Start the broker, and wait until it is ready."""
        _, self.pid = self._process.enter_context(running(own(), self._home, self._command))

    def stop(self) -> None:
        """Stop the broker."""
        self._process.close()

    def count(self, name: str) -> int:
        """Read one of the broker's counters."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http}/metrics") as page:
            lines = page.read().decode().splitlines()
        return int(float(next(line for line in lines if line.startswith(f"airunner_{name}_total ")).split()[1]))


def memory_mib(pid: int) -> float:
    """Return the memory of a process and its children in MiB, pages that they share counted once (PSS)."""
    pids = [pid, *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    rollups = "".join(Path(f"/proc/{each}/smaps_rollup").read_text() for each in pids)
    return sum(int(line.split()[1]) for line in rollups.splitlines() if line.startswith("Pss:")) / 1_024


async def submit(channel: Channel, queue: str, per_s: float, sent: list[Submitted]) -> None:
    """Submit jobs one by one at a steady rate, until cancelled."""
    job = JobSpec(command="true", queue=queue)
    due_s = time.monotonic()
    while True:
        began_s = time.monotonic()
        reply = await channel.ask(EnqueueJob(jobs=(job,)))
        sent.append(Submitted(reply.job_ids[0], began_s, time.monotonic()))
        due_s = max(due_s + 1 / per_s, time.monotonic())
        await anyio.sleep(max(0.0, due_s - time.monotonic()))


async def arrive(where: Cluster, arrived: list[Submitted]) -> None:
    """Connect one client after another, each of which submits one job, until cancelled."""
    while True:
        began_s = time.monotonic()
        async with connected(where) as channel:
            reply = await channel.ask(EnqueueJob(jobs=(JobSpec(command="true", queue=UNSERVED),)))
            arrived.append(Submitted(reply.job_ids[0], began_s, time.monotonic()))
        await anyio.sleep(max(0.0, began_s + 1 / ARRIVALS_PER_S - time.monotonic()))


async def submitted(channel: Channel, queue: str, seconds: float) -> list[Submitted]:
    """Submit jobs one by one at the steady rate for some seconds."""
    sent: list[Submitted] = []
    with anyio.move_on_after(seconds):
        await submit(channel, queue, STEADY_PER_S, sent)
    return sent


async def steady(where: Cluster, channel: Channel) -> tuple[list[Submitted], list[Submitted]]:
    """Measure the submissions of a client that is connected, and those of new clients."""
    arrived: list[Submitted] = []
    sent: list[Submitted] = []
    async with anyio.create_task_group() as group:
        group.start_soon(arrive, where, arrived)
        sent += await submitted(channel, UNSERVED, STEADY_S)
        group.cancel_scope.cancel()
    return sent, arrived


async def parked(broker: Broker, agents: int, others: Callable[[], int]) -> None:
    """Wait until so many agents have sent the started broker a request, besides `others`, the clients' own."""
    came = 0
    for _ in range(int(WAIT_S_MAX / LOOK_S)):
        came = await anyio.to_thread.run_sync(broker.count, "requests") - others()
        if came >= agents:
            return
        await anyio.sleep(LOOK_S)
    raise TimeoutError(f"only {came} of {agents} agents have come")


async def idle_share(broker: Broker) -> float:
    """Measure the processor time a second of an idle broker."""
    began_s, before_s = time.monotonic(), processor_s(broker.pid)
    await anyio.sleep(IDLE_S)
    return (processor_s(broker.pid) - before_s) / (time.monotonic() - began_s)


async def restarted(
    broker: Broker, where: Cluster, channel: Channel, agents: int
) -> tuple[float, list[Submitted], list[Submitted]]:
    """Restart the broker; return the seconds until all agents are back, and the jobs submitted meanwhile.

    The latter are those of the client that was connected before, and those of clients that then connect.
    """
    broker.stop()
    sent: list[Submitted] = []
    arrived: list[Submitted] = []
    return_s = 0.0
    async with anyio.create_task_group() as group:
        group.start_soon(submit, channel, UNSERVED, STEADY_PER_S, sent)
        await anyio.to_thread.run_sync(broker.start)
        ready_s = time.monotonic()
        group.start_soon(arrive, where, arrived)
        await parked(broker, agents, lambda: len(sent) + len(arrived))
        return_s = time.monotonic() - ready_s
        group.cancel_scope.cancel()
    return return_s, sent[1:], arrived  # the first waited for the broker


async def measure(home: Path, agents: int) -> Measured:
    """Measure a broker with `agents` agents."""
    broker = Broker(home)
    broker.start()
    empty_mib = memory_mib(broker.pid)
    where = Cluster(broker.endpoint, home, token(own(), home, "default"), broker.pid)
    async with connected(where) as channel:
        with fleets(broker.endpoint, home, agents) as pipes:
            await parked(broker, agents, lambda: 0)
            core_share = await idle_share(broker)
            full_mib = memory_mib(broker.pid)
            jobs = await submitted(channel, "default", STARTS / STEADY_PER_S)
            told = started(pipes, len(jobs))
            before, arrived_before = await steady(where, channel)
            return_s, meanwhile, arrived = await restarted(broker, where, channel, agents)
    broker.stop()
    return Measured(
        memory_mib=full_mib,
        empty_mib=empty_mib,
        core_share=core_share,
        started_ms=tuple((told[job.job_id] - job.sent_s) * 1_000 for job in jobs),
        return_s=return_s,
        steady_ms=_taken_ms(before),
        meanwhile_ms=_taken_ms(meanwhile),
        steady_arrivals_ms=_taken_ms(arrived_before),
        arrivals_ms=_taken_ms(arrived),
    )


def _taken_ms(jobs: list[Submitted]) -> tuple[float, ...]:
    return tuple(job.taken_ms for job in jobs)


def many(agents: int) -> Measured:
    """Measure a broker with `agents` agents and a temporary home."""
    with new_home(own()) as home:
        return anyio.run(measure, home, agents)


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure with a home of its own."""

    def measured() -> Sample:
        found = product.call(many, AGENTS)
        meanwhile, before, arrivals, arrivals_before = (
            (median(taken), quantiles(taken, n=10)[8])
            for taken in (found.meanwhile_ms, found.steady_ms, found.arrivals_ms, found.steady_arrivals_ms)
        )
        return {
            "broker's memory": Reading(found.memory_mib, found.empty_mib),
            "broker's share of a core": Reading(found.core_share * 100),
            "submit to start": Reading(median(found.started_ms)),
            "all are back": Reading(found.return_s),
            "submit meanwhile, median": Reading(meanwhile[0], before[0]),
            "submit meanwhile, p90": Reading(meanwhile[1], before[1]),
            "connect meanwhile, median": Reading(arrivals[0], arrivals_before[0]),
            "connect meanwhile, p90": Reading(arrivals[1], arrivals_before[1]),
        }

    yield measured


GROUP: Final = Group("many", FIGURES, opened, rounds=1)
