"""Console throughput: MB a second of a job's output through agent, broker and disk to its monitors, and what it costs.

A job writes the log of a build or random bytes, in a pipe or in a terminal, and `airunner monitor` follows it into a
file, which must hold exactly these bytes; then the finished job is replayed, from its first to its last event. The
processor time of each process is in ms a MB of output.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from random import Random
from time import perf_counter, process_time
from typing import Final

import anyio
from msgspec import Struct

from airunner import Client
from airunner.certs.home import Home
from airunner.protocol.events import Output
from airunner.protocol.fields import DEFAULT_QUEUE, JobSpec, ProcessType
from airunner.protocol.replies import QueueMode
from bench.cluster import Cluster, agent, broker, cluster, new_home
from bench.consolereference import replayed_rate, stored_rate
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product, own

IN_ONE: Final = "cat, zstd level 1, a SecretBox and a file with an fsync, in one process"
FIGURES: Final = (
    Figure("text", "MB/s", Bound.LEAST, offset=150, of=IN_ONE),
    Figure("terminal", "MB/s", Bound.LEAST, offset=100, of=IN_ONE),
    Figure("random bytes", "MB/s", Bound.LEAST, offset=60, of=IN_ONE),
    Figure("replay", "MB/s", Bound.LEAST, offset=300, of="the same back, into a file"),
    Figure("text, ten monitors", "MB/s", Bound.LEAST, 0.5, of="the same text with one monitor"),
    *(Figure(f"text, {process}", "ms a MB") for process in ("agent", "broker", "monitor")),
    Figure("stored", "bytes a byte", Bound.MOST, offset=0.2),
)
MB: Final = 1_000_000
PIECE_BYTES: Final = 10 * MB  # size of the file that the job writes again and again
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")  # ticks a second, in which /proc states processor time
MB_MEASURED: Final = 100  # in each job of the benchmark's table
MB_STORED: Final = 20  # in the job whose stored size is measured
MONITORS: Final = 10  # monitors of one job, to measure how much they slow it
FOLLOWING: Final = b"waiting in queue"  # in what a monitor prints once it follows a job that waits


class Throughput(Struct, frozen=True):
    """Throughput in MB a second, and processor time in ms a MB of each process: of all monitors together."""

    rate: float  # until the last monitor has all
    cost_ms: dict[str, float]
    job_rate: float = 0.0  # until the job has finished; 0: it was replayed

    def cost(self, *names: str) -> float:
        """Sum the processor time of these processes."""
        return sum(self.cost_ms.get(name, 0.0) for name in names)


class Throughputs(Struct, frozen=True):
    """Throughputs of one round, by what was written and how."""

    text: Throughput
    text_many: Throughput  # with `MONITORS` monitors
    random: Throughput
    terminal: Throughput
    replay: Throughput


def build_log(size: int, seed: int = 1) -> bytes:
    """Make the log of a build: compilers, warnings, tests, time stamps, hashes and colours, in usual proportions."""
    random = Random(seed)
    folders = ("src/core", "src/net/http", "src/store/sqlite", "lib/crypto", "tests/unit", "vendor/zlib", "tools/gen")
    words = ("buffer", "socket", "parser", "index", "cursor", "cache", "stream", "codec", "worker", "token", "frame")
    lines: list[bytes] = []
    written = 0
    while written < size:
        step, word = len(lines) % 4_000, random.choice(words)
        name = f"{random.choice(folders)}/{random.choice(words)}_{word}"
        kinds = (
            f"[{step}/4000] Building CXX object CMakeFiles/{name}.cc.o -O2 -Wall -I/build/{random.choice(folders)}",
            f"{random.uniform(0, 900):10.3f} INFO  {word}: {random.getrandbits(64):016x} done",
            f"{name}.cc:{random.randrange(2_000)}:{random.randrange(80)}: warning: unused variable '{word}'",
            f"test {name.replace('/', '::')} ... ok ({random.randrange(1, 900)} ms)",
            f"\x1b[32mDownloading\x1b[0m {name}-{random.randrange(9)}.{random.randrange(30)}.tar.gz {'█' * 12} ✓",
        )
        lines.append(random.choices(kinds, (55, 15, 10, 15, 5))[0].encode() + b"\n")
        written += len(lines[-1])
    return b"".join(lines)[: size - 1] + b"\n"


async def write_and_follow(
    running: Cluster, data: bytes, mb: int, *, terminal: bool = False, monitors: int = 1
) -> tuple[Throughput, str]:
    """Let a job write `data` again and again, `mb` MB in all; check what its monitors have got; return its id too."""
    times = mb * MB // len(data)
    written = running.home / "written"
    written.write_bytes(data)
    shown = data.replace(b"\n", b"\r\n") if terminal else data
    outputs = [running.home / f"output-{number}" for number in range(monitors)]
    async with Client(running.requests, home=running.home) as client:
        await client.update_queue(DEFAULT_QUEUE, QueueMode.PAUSED)
        streams = ProcessType.PTY if terminal else ProcessType.PIPE
        job = await client.submit(JobSpec(command="cat", args=(str(written),) * times, process_type=streams))
        following = [_follow(running, job.id, output) for output in outputs]
        began, began_s = _used_s([process.pid for process in following]), perf_counter()
        await client.update_queue(DEFAULT_QUEUE, QueueMode.OPEN)
        ended = [await anyio.to_thread.run_sync(_used_to_its_end_s, process) for process in following]
        took_s = perf_counter() - began_s
        used = _used_s([]) | {"monitor": sum(ended)}
        ended_job = await client.get(job.id)
    assert ended_job.result is not None
    assert ended_job.result.usage is not None
    assert ended_job.started_ms is not None
    assert ended_job.finished_ms is not None
    usage = ended_job.result.usage
    job_s = (ended_job.finished_ms - ended_job.started_ms) / 1_000
    used = _less(used, began) | {"job": (usage.cpu_user_ms + usage.cpu_system_ms) / 1_000}
    for output in outputs:
        _check(output, shown, times)
    total_mb = len(data) * times / MB
    costs_ms = {name: used_s * 1_000 / total_mb for name, used_s in used.items()}
    return Throughput(total_mb / took_s, costs_ms, total_mb / job_s), job.id


async def replay(running: Cluster, job_id: str, data: bytes, mb: int) -> Throughput:
    """Replay a finished job with the SDK into a file, without the start of a process."""
    output = running.home / "output-0"
    async with Client(running.requests, home=running.home) as client:
        await client.get(job_id)  # the connection stands
        began, began_s, own_s = _used_s([]), perf_counter(), process_time()
        with output.open("wb", buffering=0) as file:
            async for event in client.follow(job_id):
                if isinstance(event.body, Output):
                    file.write(event.body.data)
        took_s = perf_counter() - began_s
        used = _less(_used_s([]) | {"monitor": process_time() - own_s}, began)
    _check(output, data, mb * MB // len(data))
    return Throughput(mb / took_s, {name: used_s * 1_000 / mb for name, used_s in used.items()})


async def _throughputs(mb: int) -> Throughputs:
    text, noise = build_log(PIECE_BYTES), Random(1).randbytes(PIECE_BYTES)
    with cluster(own(), spawn=1) as running:
        await write_and_follow(running, text, PIECE_BYTES // MB)  # so that no process is at its first job
        piped, job_id = await write_and_follow(running, text, mb)
        replayed = await replay(running, job_id, text, mb)
        many, _ = await write_and_follow(running, text, mb, monitors=MONITORS)
        terminal, _ = await write_and_follow(running, text, mb, terminal=True)
        random, _ = await write_and_follow(running, noise, mb)
    return Throughputs(text=piped, text_many=many, random=random, terminal=terminal, replay=replayed)


def _follow(running: Cluster, job_id: str, output: Path) -> subprocess.Popen[bytes]:
    """Start to follow a job that waits, into a file."""
    monitor = own().command("monitor", "--broker", running.requests, job_id)
    with output.open("wb") as file:
        process = subprocess.Popen(monitor, env=own().environ(running.home), stdout=file, stderr=subprocess.PIPE)
    assert process.stderr is not None
    for line in process.stderr:
        if FOLLOWING in line:
            return process
    raise RuntimeError(f"a monitor has exited with {process.wait()}")


def _used_to_its_end_s(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end of a monitor, and return the processor time that it has used."""
    assert process.stderr is not None
    process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert not process.returncode, f"a monitor has exited with {process.returncode}"
    return usage.ru_utime + usage.ru_stime


def _used_s(monitors: Sequence[int]) -> dict[str, float]:
    """Return the processor time that this process's descendants have used, by what they are."""
    children: dict[int, list[tuple[int, int]]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # the process has ended meanwhile
        children.setdefault(int(fields[1]), []).append((int(stat.parent.name), int(fields[11]) + int(fields[12])))
    used: dict[str, float] = {}
    parents = [(os.getpid(), "")]
    while parents:
        parent, of = parents.pop()
        for pid, ticks in children.get(parent, ()):
            role = "monitor" if pid in monitors else _role(pid, of)
            used[role] = used.get(role, 0.0) + ticks / TICKS_PER_S
            parents.append((pid, role))
    return used


def _less(used: Mapping[str, float], began: Mapping[str, float]) -> dict[str, float]:
    return {name: used_s - began.get(name, 0.0) for name, used_s in used.items()}


def _role(pid: int, parent: str) -> str:
    if parent:
        return {"broker": "relay", "agent": "launcher"}.get(parent, "keeper")
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return next((word.decode() for word in words if word in (b"broker", b"agent")), "other")


def _check(output: Path, data: bytes, times: int) -> None:
    """Check that a file holds `data` as many times, and remove it."""
    got, expected = blake2b(), blake2b()
    with output.open("rb") as file:
        while piece := file.read(len(data)):
            got.update(piece)
    for _ in range(times):
        expected.update(data)
    assert got.digest() == expected.digest(), "the monitor's bytes differ from the job's"
    output.unlink()


def throughputs(mb: int) -> Throughputs:
    """Measure all throughputs once, each with `mb` MB."""
    return anyio.run(_throughputs, mb)


def stored_share(mb: int) -> float:
    """Measure the size of the store's file, after a job has written `mb` MB of text, as a share of the text."""
    with new_home(own()) as home:
        with broker(own(), home) as running, agent(own(), running, spawn=1):
            anyio.run(write_and_follow, running, build_log(PIECE_BYTES), mb)
        return Home(home).store.stat().st_size / (mb * MB)  # after the broker has closed it


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure with a cluster of its own in each round."""
    times = MB_MEASURED * MB // PIECE_BYTES
    with tempfile.TemporaryDirectory(prefix="airunner-bench-") as folder:
        text, noise = Path(folder) / "text", Path(folder) / "noise"
        text.write_bytes(build_log(PIECE_BYTES))
        noise.write_bytes(Random(1).randbytes(PIECE_BYTES))

        def measure() -> Sample:
            found = product.call(throughputs, MB_MEASURED)
            return {
                "text": Reading(found.text.rate, stored_rate(text, times)),
                "terminal": Reading(found.terminal.rate, stored_rate(text, times, terminal=True)),
                "random bytes": Reading(found.random.rate, stored_rate(noise, times)),
                "replay": Reading(found.replay.rate, replayed_rate(text, times)),
                "text, ten monitors": Reading(found.text_many.job_rate, found.text.job_rate),
                "text, agent": Reading(found.text.cost("agent", "launcher", "keeper")),
                "text, broker": Reading(found.text.cost("broker", "relay")),
                "text, monitor": Reading(found.text.cost("monitor")),
                "stored": Reading(product.call(stored_share, MB_STORED)),
            }

        yield measure


GROUP: Final = Group("console", FIGURES, opened, rounds=2)
