"""The clients and monitors of a chaos run: small programs that can be killed at any instant and go on after it.

`python -m tests.acceptance.chaos_users client|shell|monitor NAME FOLDER SEED`. What a client was told is in its
journal, synced, before it does anything else; what it asked and was not answered it asks again under the same
request id, as a person would. What a monitor was shown is in its views; it goes on behind the last event.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final

import anyio
import msgspec

from airunner import Client, Event, Patience, PeerError
from tests.acceptance.chaos_jobs import job_spec

STOP: Final = "stop"  # a file of this name: begin nothing more
SHOWN: Final = "end"  # the last line of a view that came to its end by itself
NEWEST: Final = 2  # of each client's jobs, which a monitor chooses from
PAUSE_S: Final = 6.0  # at the most, between two jobs of one user


class Journal:
    """What a client was told: `request job` a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def accepted(self) -> list[tuple[str, str]]:
        """The requests and their jobs, in order; nobody went on from a torn last line."""
        return [(request, job_id) for request, job_id in (line.split() for line in whole_lines(self._path))]

    def note(self, request: str, job_id: str) -> None:
        """This is on disk when it returns."""
        with self._path.open("a") as file:
            file.write(f"{request} {job_id}\n")
            file.flush()
            os.fsync(file.fileno())


class View:
    """What a monitor was shown of one job: `job first`, then `sequence fingerprint` a line, and perhaps an end."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self.path = path
        self.number = int(path.suffixes[-2][1:])
        self.job_id, first = lines[0].split()
        self.first = int(first)
        self.shown = [line for line in lines[1:] if line != SHOWN]
        self.ended = lines[-1] == SHOWN

    @property
    def next_sequence(self) -> int:
        return self.first + len(self.shown)


def whole_lines(path: Path) -> list[str]:
    """Those that were written to their end."""
    return path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []


def journals(folder: Path) -> Iterator[Path]:
    """Those of all clients."""
    return folder.glob("*.accepted")


def views(folder: Path, name: str = "*") -> list[View]:
    """Of one monitor, or of all."""
    read = [(path, whole_lines(path)) for path in sorted(folder.glob(f"{name}.*.seen"))]
    return [View(path, lines) for path, lines in read if lines]


def fingerprint(event: Event) -> str:
    """The same for the same event."""
    return blake2b(msgspec.msgpack.encode(event), digest_size=12).hexdigest()


async def submit(name: str, folder: Path, seed: str) -> None:
    """One job after the other through the SDK."""
    journal = Journal(folder / f"{name}.accepted")
    number = len(journal.accepted())
    async with Client(patience=Patience()) as client:
        while not (folder / STOP).exists():
            request = f"{name}-{number}"
            try:
                job = await client.submit(job_spec(seed, request), request_id=request)
            except PeerError as error:  # the disk is full
                sys.stderr.write(f"{request}: {error}\n")
            else:
                journal.note(request, job.id)
                number += 1
            await pause()


async def submit_by_shell(name: str, folder: Path, seed: str) -> None:
    """The same through the command line."""
    journal = Journal(folder / f"{name}.accepted")
    number = len(journal.accepted())
    while not (folder / STOP).exists():
        request = f"{name}-{number}"
        spec = job_spec(seed, request)
        words = [sys.executable, "-m", "airunner", "submit", "--no-monitor", "-q", "--request-id", request]
        words += ["--process-type", spec.process_type]
        notes = [word for pair in spec.metadata.items() for word in ("--metadata", "=".join(pair))]
        done = await anyio.run_process([*words, *notes, "--", *spec.argv], check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            journal.note(request, done.stdout.decode().strip())
            number += 1
        await pause()


async def monitor(name: str, folder: Path, _: str) -> None:
    """Follow one job after the other; first the one that was being followed when this was killed."""
    mine = views(folder, name)
    taken = 1 + max((view.number for view in mine), default=-1)
    async with Client(patience=Patience()) as client:
        if mine and not mine[-1].ended:
            await follow(client, mine[-1])
        while not (folder / STOP).exists():
            jobs = [job_id for path in journals(folder) for _, job_id in Journal(path).accepted()[-NEWEST:]]
            if jobs:
                first = random.choice([1, 1, 2, 5])
                view = View(folder / f"{name}.{taken:05}.seen", [f"{random.choice(jobs)} {first}"])
                taken += 1
                await follow(client, view)
            await pause()


async def follow(client: Client, view: View) -> None:
    """To the end, writing each event down before the next."""
    with view.path.open("w", buffering=1) as seen:  # anew, without a torn line
        seen.writelines(f"{line}\n" for line in [f"{view.job_id} {view.first}", *view.shown])
        try:
            async with client.follow(view.job_id, view.next_sequence) as events:
                async for event in events:
                    seen.write(f"{event.sequence} {fingerprint(event)}\n")
            seen.write(f"{SHOWN}\n")
        except PeerError as error:
            seen.write(f"refused: {error}\n")


async def pause() -> None:
    """Until the next thing that this user wants; real users wait for real."""
    with anyio.move_on_after(random.random() * PAUSE_S):
        await anyio.Event().wait()


def main() -> None:
    """Be one of them until killed."""
    kind, name, folder, seed = sys.argv[1:]
    run = {"client": submit, "shell": submit_by_shell, "monitor": monitor}[kind]
    anyio.run(run, name, Path(folder), seed)


if __name__ == "__main__":
    main()
