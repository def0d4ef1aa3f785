"""The clients and monitors of a chaos run: small programs that can be killed at any instant and go on after it.

`python -m tests.acceptance.chaos_users client|shell|monitor|parker NAME FOLDER SEED`. What a user asked, was told and
was shown is in its diary, as records of the simulation's histories, before it does anything else. What it asked and was
not answered it asks again under the same request id, as a person would; a monitor goes on behind the last event. A
parker asks for jobs of a queue that has none, and is to be told so when it has waited as long as it wanted.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import anyio

from airunner import Client, JobSpec, Patience, PeerError
from airunner.client.reach import reach
from airunner.protocol.names import SEED_BYTES
from airunner.protocol.requests import DequeueJob
from airunner.transport.channel import Channel
from tests.acceptance.chaos_jobs import job_spec
from tests.simulation.history import Acknowledged, FollowEnded, Invoked, Monitored, Record, pack, unpack, wall_ms

STOP: Final = "stop"  # a file of this name: begin nothing more
CLIENT_KINDS: Final = ("client", "shell")
NEWEST: Final = 2  # of each client's jobs, which a monitor chooses from
PARKED: Final = "parked"  # queue without jobs
PARKED_MS: Final = 2_000
PAUSE_S: Final = 6.0  # at the most, between two jobs of one user


class Diary:
    """Records that outlive the process of their user."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.diary"
        self.records = unpack(self._path.read_bytes()) if self._path.exists() else []
        self._path.write_bytes(pack(self.records))  # without a torn end

    def note(self, kind: type[Record], /, **fields: object) -> None:
        """Write down that this has happened now."""
        self.records.append(kind(at_ms=wall_ms(), **fields))
        with self._path.open("ab") as file:
            file.write(pack(self.records[-1:]))


def diaries(folder: Path, *kinds: str) -> list[list[Record]]:
    """What all users, or those of these kinds, have written down."""
    paths = [path for kind in kinds or ("",) for path in sorted(folder.glob(f"{kind}*.diary"))]
    return [unpack(path.read_bytes()) for path in paths]


def accepted(records: list[Record]) -> list[str]:
    """The jobs that a client was told of."""
    return [job_id for record in records if isinstance(record, Acknowledged) for job_id in record.job_ids]


async def submit(name: str, folder: Path, seed: str) -> None:
    """One job after the other through the SDK."""
    async with Client(patience=Patience()) as client:

        async def ask(spec: JobSpec, request: str) -> str | None:
            try:
                return (await client.submit(spec, request_id=request)).id
            except PeerError as error:  # the disk is full
                sys.stderr.write(f"{request}: {error}\n")
                return None

        await submit_all(name, folder, seed, ask)


async def submit_by_shell(name: str, folder: Path, seed: str) -> None:
    """The same through the command line."""

    async def ask(spec: JobSpec, request: str) -> str | None:
        words = [sys.executable, "-m", "airunner", "submit", "--no-monitor", "-q", "--request-id", request]
        words += ["--process-type", spec.process_type]
        notes = [word for pair in spec.metadata.items() for word in ("--metadata", "=".join(pair))]
        done = await anyio.run_process([*words, *notes, "--", *spec.argv], check=False, stdin=subprocess.DEVNULL)
        return done.stdout.decode().strip() if done.returncode == 0 else None

    await submit_all(name, folder, seed, ask)


async def submit_all(name: str, folder: Path, seed: str, ask: Callable[[JobSpec, str], Awaitable[str | None]]) -> None:
    """Submit a job under a name, and the next when its id is known."""
    diary = Diary(folder, name)
    number = len(accepted(diary.records))
    while not (folder / STOP).exists():
        request = f"{name}-{number}"
        spec = job_spec(seed, request)
        common = {"machine": name, "request_id": request.encode(), "kind": "enqueue"}
        diary.note(Invoked, **common, jobs=(spec,))
        if (job_id := await ask(spec, request)) is not None:
            diary.note(Acknowledged, **common, job_ids=(job_id,))
            number += 1
        await pause()


async def monitor(name: str, folder: Path, _: str) -> None:
    """Follow one job after the other; first the one that was being followed when this was killed."""
    diary = Diary(folder, name)
    async with Client(patience=Patience()) as client:
        if diary.records and isinstance(last := diary.records[-1], Monitored):
            await follow(client, diary, last.monitor, last.job_id, last.from_sequence, last.event.sequence + 1)
        while not (folder / STOP).exists():
            jobs = [job_id for records in diaries(folder, *CLIENT_KINDS) for job_id in accepted(records)[-NEWEST:]]
            if jobs:
                first = random.choice([1, 1, 2, 5])
                await follow(client, diary, f"{name}.{wall_ms()}", random.choice(jobs), first, first)
            await pause()


async def follow(client: Client, diary: Diary, name: str, job_id: str, first: int, place: int) -> None:
    """From `place` to the end, writing each event down before the next."""
    shown = {"monitor": name, "job_id": job_id, "from_sequence": first}
    async with client.follow(job_id, place) as events:
        async for event in events:
            diary.note(Monitored, **shown, event=event)
    diary.note(FollowEnded, **shown)


async def park(name: str, folder: Path, _: str) -> None:
    """Ask for a job that nobody submits, again and again, with a patience that a broker is to know of."""
    diary = Diary(folder, name)
    access = reach()
    channel = Channel(access.network, access.endpoints, access.token, access.edges, Patience())
    async with anyio.create_task_group() as group:
        await group.start(channel.run)
        while not (folder / STOP).exists():
            request_id = access.edges.new_request_id()
            common = {"machine": name, "request_id": request_id, "kind": PARKED}
            seed = access.edges.random_bytes(SEED_BYTES)
            asked = DequeueJob(agent=name, queues=(PARKED,), visibility_ms=60_000, wait_ms=PARKED_MS, token_seed=seed)
            diary.note(Invoked, **common)
            await channel.ask(asked, request_id=request_id, wait_ms=PARKED_MS)
            diary.note(Acknowledged, **common)
        group.cancel_scope.cancel()
    access.close()


async def pause() -> None:
    """Until the next thing that this user wants; real users wait for real."""
    with anyio.move_on_after(random.random() * PAUSE_S):
        await anyio.Event().wait()


def main() -> None:
    """Be one of them until killed."""
    kind, name, folder, seed = sys.argv[1:]
    run = {"client": submit, "shell": submit_by_shell, "monitor": monitor, "parker": park}[kind]
    anyio.run(run, name, Path(folder), seed)


if __name__ == "__main__":
    main()
