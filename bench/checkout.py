"""Checkout time of a repository's second job, compared with its first job: what the agent's mirror saves.

The repository has 50 MB of history and is served by `git daemon`; both jobs check it out and do nothing else. Run it
with `python -m bench.checkout`.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import anyio

from airunner import Client
from airunner.protocol.events import GitCloneEnd
from bench.cluster import cluster

HISTORY_BYTES: Final = 50_000_000  # size of all versions of the file together
VERSIONS: Final = 10  # versions of the file, with nothing in common
SHARE_MAX: Final = 0.2  # bound of the second checkout's time, as a share of the first checkout's
ROUNDS: Final = 3  # pairs of checkouts, each of a new repository
GIT_OPTIONS: Final = ("-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "gc.auto=0")


def make_repository(folder: Path) -> None:
    """Make a repository with a file in `VERSIONS` versions, each in a commit of its own."""
    folder.mkdir()
    chance = random.Random(1)
    subprocess.run(("git", "init", "--quiet", "--initial-branch=main", folder), check=True)
    for version in range(VERSIONS):
        (folder / "file").write_bytes(chance.randbytes(HISTORY_BYTES // VERSIONS))
        subprocess.run(("git", "-C", folder, "add", "."), check=True)
        commit = ("commit", "--quiet", "--message", f"version {version}")
        subprocess.run(("git", *GIT_OPTIONS, "-C", folder, *commit), check=True)
    (folder / ".git" / "git-daemon-export-ok").touch()


@contextmanager
def served(folder: Path) -> Generator[str]:
    """Serve the repositories in `folder` during the block, and yield their URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = (f"--base-path={folder}", f"--port={port}", "--listen=127.0.0.1", "--reuseaddr")
    daemon = subprocess.Popen(("git", "daemon", *options, folder), process_group=0)
    try:
        yield f"git://127.0.0.1:{port}"
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait()


async def checkout_ms(requests: str, home: str, repository: str) -> int:
    """Run a job; return the milliseconds that its checkout took."""
    async with Client(requests, home=home) as client:
        job = await client.submit(command="true", repository=repository)
        bodies = [event.body async for event in client.follow(job.id)]
    return next(body.duration_ms for body in bodies if isinstance(body, GitCloneEnd))


def main() -> None:
    """Print both times and their ratio for each round; exit with 1 if the median ratio is above `SHARE_MAX`."""
    shares: list[float] = []
    with tempfile.TemporaryDirectory(prefix="airunner-bench-") as made, served(Path(made)) as base:
        for number in range(ROUNDS):
            make_repository(Path(made) / f"r{number}")
            with cluster(spawn=1) as running:
                first, second = (
                    anyio.run(checkout_ms, running.requests, str(running.home), f"{base}/r{number}/.git")
                    for _ in range(2)
                )
            shares.append(second / first)
            print(f"first {first} ms   second {second} ms   {second / first:.1%}", flush=True)
    print(f"median {median(shares):.1%} of the first checkout's time (at most {SHARE_MAX:.0%})")
    sys.exit(median(shares) > SHARE_MAX)


if __name__ == "__main__":
    main()
