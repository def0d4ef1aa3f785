"""Caches of jobs: how long the second run of small projects takes as a job, beside the same command without airunner.

The reference clones the project again and runs its command with what the first run has left in HOME and in the folders
of the cache: so a job is given the time of a clone, but none for its cache. A job's time is that from its lease to its
end. The other agent has an empty home at the same path, as one of another machine that is set up alike, and gets all
from the broker. What a machine has no tool or no packages for is left out, and said on standard error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio

from airunner import Client
from airunner.certs.home import Home
from airunner.protocol.caches import HOME, PRESETS
from airunner.protocol.events import JobFinished, JobLeased, ProcessError
from airunner.protocol.job import JobState
from bench.cacheprojects import GIT, PROJECTS, Project
from bench.cluster import Cluster, cluster, running
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product, Unmeasured

SAME, OTHER = "same agent", "other agent"
_OF: Final = "the command in a new clone, with what its first run left"
_FACTORS: Final = {SAME: 1.3, OTHER: 2.0}
FIGURES: Final = tuple(
    Figure(f"{name}, {where}", "s", Bound.MOST, factor=factor, of=_OF)
    for name in PROJECTS
    for where, factor in _FACTORS.items()
)


def environment() -> dict[str, str]:
    """Return the variables that tools need besides HOME."""
    home = Path.home()
    return {
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(home / ".rustup")),
        "GOTOOLCHAIN": "local",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def bare_s(project: Project, repository: Path, folder: Path) -> float:
    """Run the command twice, each time in a new clone; return the seconds of the second clone and run."""
    home, clone, kept = folder / "home", folder / "clone", folder / "kept"
    environ = {**os.environ, **environment(), "HOME": str(home)}
    for name in ("CARGO_HOME", "GOPATH", "GOCACHE"):
        environ.pop(name, None)
    home.mkdir(parents=True)
    paths = [path for path in PRESETS[project.preset].paths if not path.startswith(HOME)]
    taken_s = 0.0
    for _ in range(2):
        shutil.rmtree(clone, ignore_errors=True)
        began_s = time.monotonic()
        subprocess.run([*GIT, "clone", "-q", "--no-local", str(repository), str(clone)], check=True)
        for path in paths:
            if (kept / path).exists():
                (kept / path).rename(clone / path)
        done = subprocess.run(["sh", "-c", project.script], cwd=clone, env=environ, capture_output=True, check=False)
        taken_s = time.monotonic() - began_s
        if done.returncode:
            raise Unmeasured(f"{project.script}: {done.stderr.decode(errors='replace').strip()[-300:]}")
        for path in paths:
            (kept / path).parent.mkdir(parents=True, exist_ok=True)
            (clone / path).rename(kept / path)
    return taken_s


def job_s(where: Cluster, repository: Path, name: str) -> float:
    """Run a project as a job; return the seconds from its lease to its end."""

    async def main() -> float:
        project = PROJECTS[name]
        async with Client(where.requests, home=where.home) as client:
            job = await client.submit(
                command="sh",
                args=["-c", project.script],
                repository=str(repository),
                caches=[PRESETS[project.preset]],
                environment=environment(),
            )
            leased_ms = 0
            async for event in client.follow(job.id):
                match event.body:
                    case JobLeased(timestamp_ms=leased_ms):
                        pass
                    case ProcessError(message=message):
                        sys.stderr.write(f"{name}: {message}\n")
                    case JobFinished(timestamp_ms=ended_ms, state=state):
                        if state is not JobState.COMPLETED:
                            raise Unmeasured(f"{name} has ended {state}")
                        return (ended_ms - leased_ms) / 1_000
                    case _:
                        pass
        raise Unmeasured(f"{name} has no end")

    return anyio.run(main)


def measured(product: Product, where: Cluster, name: str, folder: Path) -> Sample:
    """Measure one project."""
    project, repository = PROJECTS[name], folder / "repository"
    project.make(repository)
    arguments = ["agent", "--broker", where.requests, "--allow-local"]
    with running(product, where.home, arguments):
        product.call(job_s, where, repository, name)
        reference_s = bare_s(project, repository, folder)
        same_s = product.call(job_s, where, repository, name)
    Home(where.home).agent.rename(folder / "the first agent's")
    with running(product, where.home, arguments):
        other_s = product.call(job_s, where, repository, name)
    return {f"{name}, {SAME}": Reading(same_s, reference_s), f"{name}, {OTHER}": Reading(other_s, reference_s)}


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure with two agents for each project, one after the other."""

    def measure() -> Sample:
        found: dict[str, Reading] = {}
        with cluster(product, spawn=1, agents=0) as where:
            for name, project in PROJECTS.items():
                if not project.is_possible:
                    sys.stderr.write(f"{name} is left out: this machine has no {project.tool}\n")
                    continue
                with tempfile.TemporaryDirectory(prefix="airunner-bench-", ignore_cleanup_errors=True) as folder:
                    try:
                        found |= measured(product, where, name, Path(folder))
                    except (Unmeasured, OSError, subprocess.CalledProcessError) as error:
                        sys.stderr.write(f"{name} is left out: {error}\n")
        return found

    yield measure


GROUP: Final = Group("cache", FIGURES, opened, rounds=1, table=False)
