"""Real processes of airunner: started, heard out until they say that they are ready, and always ended.

Nothing here sleeps or asks again and again: a thread reads each process's stderr, and whoever waits for the
ready line wakes on that line or on the end of the process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any
from urllib.request import urlopen

from airunner.certs.home import Home
from airunner.certs.init import init
from tests.acceptance.warm import Forked, Warm

REPOSITORY = Path(__file__).resolve().parents[2]
READY_S_MAX = 30.0
STOP_S_MAX = 10.0


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, less what would point it at somebody's real installation."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AIRUNNER_", "JWT_"))}
    return {**ours, "AIRUNNER_HOME": str(home), "PYTHONPATH": str(REPOSITORY), **(more or {})}


_warm: list[Warm] = []


@contextmanager
def warm() -> Iterator[None]:
    """While the block runs each airunner is a fork of one interpreter: see `warm.py`."""
    _warm.append(Warm())
    try:
        yield
    finally:
        _warm.pop().close()


def start(
    environ: Mapping[str, str], *arguments: str, module: str = "airunner", **options: Any
) -> subprocess.Popen[bytes]:
    """`airunner ARGUMENTS`, or another module that takes such words; the options are Popen's."""
    options = {"stdin": subprocess.DEVNULL, **options}
    if _warm and module == "airunner":
        return Forked(_warm[0], arguments, env=environ, **options)
    return subprocess.Popen([sys.executable, "-m", module, *arguments], env=environ, **options)


def run(
    environ: Mapping[str, str], *arguments: str, timeout_s: float = READY_S_MAX, given: bytes = b"", **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """What becomes of it, with `given` as its stdin; it is killed where it takes longer."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(environ, *arguments, **pipes, **options) as process:
        try:
            stdout, stderr = process.communicate(given, timeout_s)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def make_home(root: Path) -> None:
    """As `airunner certs init` does."""
    init(Home(root))


def airunner(home: Path, *arguments: str, timeout_s: float = READY_S_MAX) -> str:
    """What `airunner ARGUMENTS` prints; it has to succeed."""
    done = run(environment(home), *arguments, timeout_s=timeout_s)
    assert done.returncode == 0, f"airunner {' '.join(arguments)} exited with {done.returncode}\n{done.stderr.decode()}"
    return done.stdout.decode()


def stop(process: subprocess.Popen[Any]) -> None:
    """SIGTERM, and SIGKILL where that is not heard."""
    process.terminate()
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()


def metrics(http: str) -> dict[str, float]:
    """What /metrics of a broker says, by name and labels."""
    with urlopen(f"http://{http}/metrics", timeout=STOP_S_MAX) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(number) for name, _, number in (line.rpartition(" ") for line in lines if line[:1] != "#")}


class Process:
    """One `airunner …`, and every line that it has said on stderr; `module` may be another that takes such words."""

    def __init__(
        self, home: Path, arguments: Sequence[str], more: Mapping[str, str] | None = None, module: str = "airunner"
    ) -> None:
        self.lines: list[str] = []
        self._heard: SimpleQueue[str | None] = SimpleQueue()
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
        self._popen = start(environment(home, more), *arguments, module=module, **pipes)
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def line(self, start: str, timeout_s: float = READY_S_MAX) -> str:
        """The next line that begins with `start`; fails when the process ends without it."""
        while (line := self._heard.get(timeout=timeout_s)) is not None:
            if line.startswith(start):
                return line
        raise AssertionError(f"airunner ended without {start!r}; it said:\n" + "\n".join(self.lines))

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; returns when nothing is left of it."""
        self._popen.kill()
        self._collect()

    def stop(self) -> int:
        """SIGTERM, and SIGKILL where that is not heard; the exit code."""
        stop(self._popen)
        return self._collect()

    def wait(self, timeout_s: float = STOP_S_MAX) -> int:
        """The exit code, once it ends by itself."""
        self._popen.wait(timeout_s)
        return self._collect()

    def _collect(self) -> int:
        code = self._popen.wait(STOP_S_MAX)
        self._reader.join(STOP_S_MAX)
        return code

    def _read(self) -> None:
        assert self._popen.stderr is not None
        with self._popen.stderr as stderr:
            for line in stderr:
                self.lines.append(line.rstrip("\n"))
                self._heard.put(self.lines[-1])
        self._heard.put(None)


class RunningBroker:
    """A broker process; after a `kill` or `stop`, `start` brings it back on the same ports."""

    def __init__(self, home: Path, store: str | None = None, *options: str, command: str = "broker") -> None:
        self.home = home
        self.command = command
        self.requests = "tcp://127.0.0.1:0"
        self.events = "tcp://127.0.0.1:0"
        self.http = "127.0.0.1:0"
        self.options = [*(["--store", store] if store else []), *options]
        self.process = self.start()

    def start(self) -> Process:
        """Start it, and return when it has said that it is ready."""
        doors = ["--listen", self.requests, "--events", self.events, "--http", self.http]
        self.process = Process(self.home, [self.command, *doors, *self.options])
        try:
            words = self.process.line("airunner broker ready").split()
        except BaseException:
            self.process.kill()
            raise
        self.requests, self.events, self.http = (
            words[words.index(door) + 1] for door in ("requests", "events", "http")
        )
        return self.process

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self.process.stop()


class Cluster:
    """A broker and the agents that were started for it, all of one home."""

    def __init__(self, broker: RunningBroker) -> None:
        self.broker = broker
        self.home = broker.home
        self.agents: list[Process] = []

    def agent(self, *options: str, spawn: int = 1, more: Mapping[str, str] | None = None) -> Process:
        """Start another agent, and return when it is ready."""
        arguments = ["agent", "--broker", self.broker.requests, "--spawn", str(spawn), "--allow-local", *options]
        agent = Process(self.home, arguments, more)
        self.agents.append(agent)
        agent.line("airunner agent ready")
        return agent

    @property
    def environ(self) -> dict[str, str]:
        """Of this home's clients."""
        return environment(self.home, {"AIRUNNER_BROKER": self.broker.requests})

    def airunner(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """What becomes of `airunner ARGUMENTS` against this cluster; the options are those of `run`."""
        return run(self.environ, *arguments, **options)

    def close(self) -> None:
        """End all of it."""
        for agent in self.agents:
            agent.stop()  # not killed where it obeys: what it ran is to count for the coverage
        self.broker.stop()


@contextmanager
def running_broker(home: Path, store: str | None = None, *options: str) -> Iterator[RunningBroker]:
    """A broker that is there while the block runs."""
    broker = RunningBroker(home, store, *options)
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def running_cluster(home: Path) -> Iterator[Cluster]:
    """A broker with its store on disk; agents are added with `Cluster.agent`."""
    cluster = Cluster(RunningBroker(home))
    try:
        yield cluster
    finally:
        cluster.close()


class Gate:
    """A job that says that it has begun, and goes on when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.begun, self.go = folder / "begun", folder / "go"
        for fifo in (self.begun, self.attempt(1), self.attempt(2)):
            os.mkfifo(fifo)

    def attempt(self, number: int) -> Path:
        return self.go.with_suffix(f".{number}")

    @property
    def script(self) -> str:
        return f"echo early; echo $$ > {self.begun}; cat {self.go}.$AIRUNNER_ATTEMPT; echo late"

    def wait(self) -> int:
        """The job's process, once it has begun."""
        return int(self.begun.read_text())

    def open(self, attempt: int) -> None:
        self.attempt(attempt).write_text("between\n")


def submitted(cluster: Cluster, *words: str) -> str:
    """The id of a job that nobody monitors."""
    done = cluster.airunner("submit", "--no-monitor", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def submit(cluster: Cluster, script: str) -> str:
    return submitted(cluster, "--", "sh", "-c", script)


def events(cluster: Cluster, job_id: str) -> Iterator[dict[str, object]]:
    """Its whole log, once it has ended."""
    done = cluster.airunner("monitor", "--json", job_id, timeout_s=60)
    for line in done.stdout.splitlines():
        yield json.loads(line)


def stored(cluster: Cluster, job_id: str, kind: str) -> None:
    """Wait until the broker has such an event of the job; what a process has done its agent may still have to tell."""
    with start(cluster.environ, "monitor", "--json", job_id, stdout=subprocess.PIPE) as monitor:
        assert monitor.stdout is not None
        assert any(json.loads(line)["kind"] == kind for line in monitor.stdout), f"it ended without {kind}"
        monitor.kill()
