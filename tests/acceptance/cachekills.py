"""Kills of jobs and agents that write a cache, at random points: the next job gets the last whole version each time.

Run it with `make cache-kills N=100`. A job writes one number into all files of its cache, in random order. Its process
or its agent is killed at a random file, or its agent while it saves. Each job looks at what it has got first: a cache
with two numbers or with too few files is torn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Final

from tests.acceptance.running import Cluster, make_home, running_cluster, stored

FILES: Final = 200
SAVE_S: Final = 0.5  # some time of which an agent saves a cache
CACHE: Final = "kills:~/.cache/kills"
WRITE: Final = """
import os, random, signal, sys
files, number, point, victim = map(int, sys.argv[1:])
folder = os.path.expanduser("~/.cache/kills")
os.makedirs(folder, exist_ok=True)
names = os.listdir(folder)
found = {open(f"{folder}/{name}").read().partition(" ")[0] for name in names}
if len(found) > 1 or len(names) not in (0, files):
    sys.exit(f"torn: {len(names)} files of {found}")
os.write(1, f"found {''.join(found)}\\n".encode())
for at, name in enumerate(random.sample(range(files), files)):
    if at == point and os.environ["AIRUNNER_ATTEMPT"] == "1":
        os.kill(victim or os.getpid(), signal.SIGKILL)
        if victim:
            signal.pause()
    with open(f"{folder}/{name}", "w") as file:
        file.write(f"{number} {random.random()}" * random.randrange(1, 500))
"""


class Point(StrEnum):
    """What is killed: the job's process, its agent, or the agent while it saves the cache."""

    JOB = "job"
    AGENT = "agent"
    SAVING = "saving"


class Kills:
    """Rounds of kills in one cluster; `whole` is the number in the last whole version, of those that it can be."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._random = Random(seed)
        self._agent = cluster.agent()
        self._next = 1
        self.whole = {""}

    def round(self, point: Point | None = None) -> None:
        """Kill once, and look at what the next job gets."""
        match point or self._random.choice(tuple(Point)):
            case Point.JOB:
                self._job(self._random.randrange(FILES), 0)
            case Point.AGENT:
                job_id = self._submitted(self._random.randrange(FILES), self._agent.pid)
                self._agent.wait()
                self._agent = self._cluster.agent()
                self._judge(job_id)
            case Point.SAVING:
                job_id = self._submitted(-1, 0)
                stored(self._cluster, job_id, "PROCESS_END")
                with suppress(subprocess.TimeoutExpired):
                    self._agent.wait(self._random.uniform(0, SAVE_S))  # a random instant, on which nothing depends
                self._agent.kill()
                self.whole |= {str(self._next - 1)}
                self._agent = self._cluster.agent()
                self._judge(job_id)
        self._job(-1, 0)

    def _job(self, point: int, victim: int) -> None:
        self._judge(self._submitted(point, victim))

    def _submitted(self, point: int, victim: int) -> str:
        words = (sys.executable, "-c", WRITE, FILES, self._next, point, victim)
        self._next += 1
        done = self._cluster.airunner("submit", "--no-monitor", "--cache", CACHE, "--", *map(str, words))
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def _judge(self, job_id: str) -> None:
        """Look at what each attempt at a job has found; a job that has ended well has the version of its number."""
        done = self._cluster.airunner("monitor", "--json", job_id, timeout_s=60)
        events = [json.loads(line) for line in done.stdout.splitlines()]
        text = "".join(event["data"] for event in events if event["kind"] == "OUTPUT")
        assert "torn" not in text, text
        number = str(self._next - 1)
        for line in text.splitlines():
            found = line.removeprefix("found").strip()
            assert found in self.whole, f"{found!r} was found, not one of {self.whole}"
            self.whole = {found, number} if found != number else {number}
        assert text, events
        if events[-1].get("state") == "COMPLETED":
            self.whole = {number}
        else:
            self.whole -= {number}


def main() -> None:
    """Kill as often as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="airunner-kills-") as folder:
        home = Path(folder) / "home"
        make_home(home)
        with running_cluster(home) as cluster:
            kills = Kills(cluster, options.seed)
            for number in range(options.kills):
                kills.round()
                sys.stderr.write(f"{number + 1} kills, seed {options.seed}: the last whole version each time\n")


if __name__ == "__main__":
    main()
