"""Working tree as a job: bytes that `submit --tree` sends, and time until the command starts, beside a warm mirror.

The repository has a million lines, of which one is changed; `git daemon` serves it. Bytes are counted on a line between
the command and the broker, with all that a connection costs; the reference is `submit` of the commit, without the tree.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import anyio

from airunner import Client
from airunner.protocol.events import ProcessStart
from bench.checkout import GIT_OPTIONS, served
from bench.cluster import Cluster, cluster
from bench.delayline import DelayLine
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product

FILES: Final = 2_000
LINES: Final = 500  # of a file
CHANGED, AGAIN, STARTED = "one line changed", "the same tree again", "to the start"
PLAIN: Final = "submit of the commit, without the tree"
FIGURES: Final = (
    Figure(CHANGED, "bytes", Bound.MOST, offset=20_000, of=PLAIN),
    Figure(AGAIN, "bytes", Bound.MOST, offset=2_048, of=PLAIN),
    Figure(STARTED, "ms", Bound.MOST, offset=1_000, of=PLAIN),
)
SUBMIT: Final = ("submit", "--quiet", "--no-monitor", "--no-stdin")


def make_repository(folder: Path) -> None:
    """Make a repository with a million lines in one commit."""
    folder.mkdir()
    subprocess.run(("git", "init", "--quiet", "--initial-branch=main", folder), check=True)
    for number in range(FILES):
        file = folder / f"part{number % 50}" / f"{number}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(f"line {line} of file {number}\n" for line in range(LINES)))
    subprocess.run(("git", "-C", folder, "add", "."), check=True)
    subprocess.run(("git", *GIT_OPTIONS, "-C", folder, "commit", "--quiet", "--message", "first"), check=True)
    (folder / ".git" / "git-daemon-export-ok").touch()


def settle(work: Path) -> None:
    """Make a clone one of yesterday: git compares files with an index of the same second byte by byte each time."""
    for file in work.glob("part*/*"):
        os.utime(file, (0, 0))
    subprocess.run(("git", "-C", work, "status", "--short"), check=True, capture_output=True)


def started_ms(where: Cluster, job_id: str) -> int:
    """Wait for a job, and return when its command was started, in ms since the epoch."""

    async def main() -> int:
        async with Client(where.requests, home=where.home, token=where.token) as client:
            bodies = [event.body async for event in client.follow(job_id)]
        return next(body.started_at for body in bodies if isinstance(body, ProcessStart))

    return anyio.run(main)


class Submitter:
    """Submitter of jobs from the folder `work`, over a line that counts."""

    def __init__(self, product: Product, where: Cluster, line: DelayLine, work: Path) -> None:
        self._product = product
        self._where = where
        self._line = line
        self._work = work
        self._environ = product.environ(where.home) | {"AIRUNNER_BROKER": f"tcp://127.0.0.1:{line.port}"}
        self._environ.pop("PYTHONDONTWRITEBYTECODE", None)

    def __call__(self, *words: str) -> tuple[int, float]:
        """Submit a job; return the bytes sent, and the milliseconds until its command had started."""
        sent_bytes, began_ms = self._line.sent_bytes, time.time() * 1_000
        done = subprocess.run(
            self._product.command(*SUBMIT, *words, "--", "true"),
            cwd=self._work,
            env=self._environ,
            check=True,
            capture_output=True,
            text=True,
        )
        sent_bytes = self._line.sent_bytes - sent_bytes
        return sent_bytes, self._product.call(started_ms, self._where, done.stdout.strip()) - began_ms


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure with one agent that has the repository's mirror, each round with another change."""
    numbers = count()
    with (
        tempfile.TemporaryDirectory(prefix="airunner-bench-") as made,
        served(Path(made)) as base,
        cluster(product, spawn=1) as where,
        DelayLine(int(where.requests.rpartition(":")[2]), 0.0) as line,
    ):
        make_repository(Path(made) / "large")
        address, work = f"{base}/large/.git", Path(made) / "work"
        subprocess.run(("git", "clone", "--quiet", address, work), check=True)
        settle(work)
        submit = Submitter(product, where, line, work)
        submit(address)  # makes the mirror

        def measure() -> Sample:
            plain_bytes, plain_ms = submit(address)
            file = work / "part0" / "0.txt"
            file.write_text(file.read_text().replace("line 250 of", f"changed {next(numbers)}\nline 250 of"))
            changed_bytes, changed_ms = submit("--tree")
            again_bytes, _ = submit("--tree")
            return {
                CHANGED: Reading(changed_bytes, plain_bytes),
                AGAIN: Reading(again_bytes, plain_bytes),
                STARTED: Reading(changed_ms, plain_ms),
            }

        yield measure


GROUP: Final = Group("tree", FIGURES, opened, table=False)
