"""The clients and monitors of a chaos run: small programs that can be killed at any instant and go on after it.

`python -m tests.acceptance.chaos_users client|shell|monitor NAME FOLDER`. Whatever one of them was told is in its
journal, synced, before it does anything else; what it asked and was not answered it asks again under the same
request id, as a person would.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import anyio
import msgspec

from airunner import Client, Event, JobSpec, PeerError
from airunner.certs.channel import Patience

STOP = "stop"  # a file of this name: submit no more
PAUSE_S = 4.0  # at the most, between two jobs of one client
PATIENCE = Patience()

_SCRIPT = (
    "i=0; while [ $i -lt {lines} ]; do echo $AIRUNNER_JOB_ID $i; i=$((i+1)); {between}; done; {children} exit {code}"
)


def job_spec(number: int, name: str) -> JobSpec:
    """The `number`-th job of a client: what it prints and how it exits stands in its metadata."""
    drawn = random.Random(f"{name}-{number}")
    lines = drawn.choice([1, 3, 10, 40])
    code = drawn.choice([0, 0, 0, 7])
    between = drawn.choice([":", ":", "sleep 0.05", "sleep 0.2"])
    children = drawn.choice(["", "", "setsid sleep 300 &", "(sleep 300 &) ; nohup sleep 300 &"])
    script = _SCRIPT.format(lines=lines, between=between, code=code, children=children)
    return JobSpec(command="sh", args=("-c", script), metadata={"lines": str(lines), "code": str(code)})


def expected_output(job_id: str, lines: int) -> bytes:
    """What the last attempt of such a job writes to its stdout."""
    return b"".join(b"%s %d\n" % (job_id.encode(), line) for line in range(lines))


class Journal:
    """What a client was told: `request job` a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def accepted(self) -> list[str]:
        """The jobs, in order; a torn last line was never gone on from."""
        if not self._path.exists():
            return []
        whole, _, _ = self._path.read_text().rpartition("\n")
        return [line.split()[1] for line in whole.splitlines()]

    def note(self, number: int, job_id: str) -> None:
        """This is on disk when it returns."""
        with self._path.open("a") as file:
            file.write(f"{number} {job_id}\n")
            file.flush()
            os.fsync(file.fileno())


def journals(folder: Path) -> Iterator[Path]:
    """Those of all clients."""
    return folder.glob("*.accepted")


async def submit(name: str, folder: Path) -> None:
    """One job after the other through the SDK."""
    journal = Journal(folder / f"{name}.accepted")
    async with Client(patience=PATIENCE) as client:
        number = len(journal.accepted())
        while not (folder / STOP).exists():
            job = await client.submit(job_spec(number, name), request_id=f"{name}-{number}")
            journal.note(number, job.id)
            number += 1
            await pause()


async def submit_by_shell(name: str, folder: Path) -> None:
    """The same through the command line."""
    journal = Journal(folder / f"{name}.accepted")
    number = len(journal.accepted())
    while not (folder / STOP).exists():
        spec = job_spec(number, name)
        words = [sys.executable, "-m", "airunner", "submit", "--no-monitor", "-q", "--request-id", f"{name}-{number}"]
        notes = [word for pair in spec.metadata.items() for word in ("--metadata", "=".join(pair))]
        done = await anyio.run_process([*words, *notes, "--", *spec.argv], check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            journal.note(number, done.stdout.decode().strip())
            number += 1
        await pause()


async def monitor(name: str, folder: Path) -> None:
    """Follow one job after the other, and write down what was shown."""
    taken = 0
    async with Client(patience=PATIENCE) as client:
        while not (folder / STOP).exists():
            jobs = [job for path in journals(folder) for job in Journal(path).accepted()[-4:]]
            if not jobs:
                await pause()
                continue
            taken += 1
            job_id = random.choice(jobs)
            first = random.choice([1, 1, 2, 5])
            path = folder / f"{name}.{os.getpid()}.{taken}.seen"
            with path.open("w", buffering=1) as seen:
                seen.write(f"{job_id} {first}\n")
                try:
                    async with client.follow(job_id, first) as events:
                        async for event in events:
                            seen.write(f"{event.sequence} {fingerprint(event)}\n")
                except PeerError as error:
                    seen.write(f"refused {error.code}\n")
            await pause()


def fingerprint(event: Event) -> str:
    """The same for the same event."""
    return blake2b(msgspec.msgpack.encode(event), digest_size=12).hexdigest()


async def pause() -> None:
    """Until the next thing that this user wants; real users wait for real."""
    with anyio.move_on_after(random.random() * PAUSE_S):
        await anyio.Event().wait()


def main() -> None:
    """Be one of them until killed."""
    kind, name, folder = sys.argv[1:]
    run = {"client": submit, "shell": submit_by_shell, "monitor": monitor}[kind]
    anyio.run(run, name, Path(folder))


if __name__ == "__main__":
    main()
