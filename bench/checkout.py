"""Checkout time of a repository's second job, compared with its first job: what the agent's mirror saves.

The repository has 50 MB of history and is served by `git daemon`; both jobs check it out and do nothing else.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import anyio

from airunner import Client
from airunner.protocol.events import GitCloneEnd
from bench.cluster import Cluster, cluster, free_port
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product

HISTORY_BYTES: Final = 50_000_000  # size of all versions of the file together
VERSIONS: Final = 10  # versions of the file, with nothing in common
NAME: Final = "second checkout"
FIGURES: Final = (Figure(NAME, "ms", Bound.MOST, 0.2, of="the first checkout of the same repository"),)
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
    port = free_port()
    options = (f"--base-path={folder}", f"--port={port}", "--listen=127.0.0.1", "--reuseaddr")
    daemon = subprocess.Popen(("git", "daemon", *options, folder), process_group=0)
    try:
        yield f"git://127.0.0.1:{port}"
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait()


def checkout_ms(where: Cluster, repository: str) -> float:
    """Run a job; return the milliseconds that its checkout took."""

    async def main() -> float:
        async with Client(where.requests, home=where.home, token=where.token) as client:
            job = await client.submit(command="true", repository=repository)
            bodies = [event.body async for event in client.follow(job.id)]
        return next(body.duration_ms for body in bodies if isinstance(body, GitCloneEnd))

    return anyio.run(main)


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure with one agent, each round with a new repository."""
    numbers = count()
    with (
        tempfile.TemporaryDirectory(prefix="airunner-bench-") as made,
        served(Path(made)) as base,
        cluster(product, spawn=1) as where,
    ):

        def measure() -> Sample:
            name = f"r{next(numbers)}"
            make_repository(Path(made) / name)
            first, second = (product.call(checkout_ms, where, f"{base}/{name}/.git") for _ in range(2))
            return {NAME: Reading(second, first)}

        yield measure


GROUP: Final = Group("checkout", FIGURES, opened, table=False)
