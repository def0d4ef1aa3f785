"""Fleet of agents for a benchmark: many idle agents in a few processes.

Each has a key and a token of its own and speaks as `airunner agent` does, by the same Channel, Renewer and Leaser; only
what runs a job is left out.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final, cast

import anyio
import zmq
from msgspec import Struct

from airunner.agent.launcher.contract import Launcher
from airunner.agent.leases.health import Health
from airunner.agent.leases.leaser import Leaser, Orders
from airunner.agent.leases.probes import Probes
from airunner.agent.leases.renewer import Renewer
from airunner.agent.output.publisher import EventPublisher
from airunner.agent.output.spoolroom import SpoolRoom
from airunner.agent.plan import Plan
from airunner.certs.allowlist import Entry, PeerRole, with_entry
from airunner.certs.curve import CurvePair, load_broker_public, new_secret, public_of
from airunner.certs.home import Home
from airunner.certs.tokenkeys import load_signing_key
from airunner.certs.tokens import TokenSigner
from airunner.protocol.job import Result
from airunner.protocol.requests import CompleteJob
from airunner.transport.channel import Channel
from airunner.transport.descriptors import raise_descriptors
from airunner.transport.ports import SYSTEM
from airunner.transport.sockets import CurveNetwork, new_context

FLEETS: Final = 2  # processes that the agents share
AGENT_DESCRIPTORS: Final = 8  # of an agent here: its connection, its sockets' mailboxes, the timer of its Renewer
NICE: Final = 19  # the agents stand for other machines: they get what the broker and its client leave of the processors
SOCKETS_MAX: Final = 65_536  # of a fleet's ZeroMQ context
VISIBILITY_MS: Final = 300_000  # the default of `airunner agent`
TOKEN_TTL_S: Final = 3_600.0


class Machine(Struct, frozen=True):
    """Machine of one agent: its name, its CURVE keys and its token."""

    name: str
    public: bytes
    secret: bytes
    token: bytes


class Started(Struct, frozen=True):
    """Job that an agent has leased, and the instant (on the steady clock) at which its agent was told."""

    job_id: str
    at_s: float


def fleet(endpoint: str, broker_public: bytes, machines: Sequence[Machine], pipe: Connection) -> None:
    """Run agents until the process is terminated; send a `Started` for each job that one of them has leased."""
    raise_descriptors(64 + AGENT_DESCRIPTORS * len(machines))
    context = new_context()
    context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
    gc.disable()  # what so many agents have in one process takes long to scan; each is a process of its own otherwise
    os.nice(NICE)
    anyio.run(_fleet, context, endpoint, broker_public, machines, pipe)


async def _fleet(
    context: zmq.Context[zmq.Socket[bytes]],
    endpoint: str,
    broker_public: bytes,
    machines: Sequence[Machine],
    pipe: Connection,
) -> None:
    async with anyio.create_task_group() as group:
        for machine in machines:
            network = CurveNetwork(context, CurvePair(machine.public, machine.secret), broker_public)
            channel = Channel(network, [endpoint], partial(_given, machine.token), SYSTEM)
            await group.start(channel.run)
            group.start_soon(_agent, channel, machine.name, pipe)


def _given(token: bytes) -> bytes:
    return token


async def _agent(channel: Channel, name: str, pipe: Connection) -> None:
    """Run one agent of one slot, which completes each job at once."""
    plan = Plan(name=name, slots=1, queues=("default",), visibility_ms=VISIBILITY_MS, home=Path())
    health = Health(Probes(cast("Launcher", None), plan.home), SYSTEM.random, print)
    renewer = Renewer(channel, plan, health, SYSTEM)
    channel.nudged = renewer.nudge
    publisher = EventPublisher(channel, SYSTEM, print, SpoolRoom(0))
    leaser = Leaser(plan, channel, publisher, renewer, health, SYSTEM, Orders())
    async with anyio.create_task_group() as group:
        group.start_soon(renewer.run)
        while True:
            held = await leaser.lease()
            if held is not None:
                pipe.send(Started(held.lease.job_id, time.monotonic()))
                await channel.ask(CompleteJob(lease=held.lease.ref, event_count=0, result=Result(exit_code=0)))
                renewer.drop(held)


def enlist(home: Path, count: int) -> list[Machine]:
    """Make the keys and tokens of agents, and put their keys on the broker's allow-list."""
    place = Home(home)
    signer = TokenSigner(load_signing_key({}, place))
    secrets = [new_secret() for _ in range(count)]
    machines = [
        Machine(
            name=(name := f"agent-{number}"),
            public=public_of(secret),
            secret=secret,
            token=signer.mint(subject=name, ttl_s=TOKEN_TTL_S, now_s=time.time()).encode(),
        )
        for number, secret in enumerate(secrets)
    ]
    listed = place.allowed_clients.read_bytes()
    for machine in machines:
        listed = with_entry(listed, machine.public, Entry(machine.name, frozenset([PeerRole.AGENT])))
    place.allowed_clients.write_bytes(listed)
    return machines


@contextmanager
def fleets(endpoint: str, home: Path, agents: int) -> Generator[list[Connection]]:
    """Run `agents` agents in processes of their own during the block; yield the pipes of their `Started`."""
    machines = enlist(home, agents)
    spawning = get_context("spawn")
    public = load_broker_public(Home(home))
    processes: list[SpawnProcess] = []
    pipes: list[Connection] = []
    try:
        for first in range(FLEETS):
            receiver, sender = spawning.Pipe(duplex=False)
            pipes.append(receiver)
            processes.append(spawning.Process(target=fleet, args=(endpoint, public, machines[first::FLEETS], sender)))
            processes[-1].start()
        yield pipes
    finally:
        for process in processes:
            process.terminate()
            process.join()


def started(pipes: Sequence[Connection], jobs: int) -> dict[str, float]:
    """Receive when each of so many jobs was started."""
    found: dict[str, float] = {}
    while len(found) < jobs:
        for ready in wait(pipes):
            assert isinstance(ready, Connection), "not a pipe"
            told: Started = ready.recv()
            found[told.job_id] = told.at_s
    return found
