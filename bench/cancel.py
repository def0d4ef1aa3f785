"""Cancel latency: from `cancel` to the end of a running `sleep 1000`, with real processes, CURVE sockets and fsync.

The latency is measured from before `cancel` until the client receives PROCESS_END (the process has ended), and until it
receives JOB_FINISHED. Run it with `python -m bench.cancel [--jobs 50]`.
"""

from __future__ import annotations

import argparse
from statistics import median

import anyio

from airunner import Client
from bench.cluster import cluster


async def measure(requests: str, home: str, jobs: int) -> dict[str, list[float]]:
    """Measure the milliseconds from `cancel` to each of the two events, for each job."""
    measured: dict[str, list[float]] = {"PROCESS_END": [], "JOB_FINISHED": []}
    async with Client(requests, home=home) as client:
        for _ in range(jobs):
            job = await client.submit(command="sleep", args=("1000",))
            began = anyio.current_time()
            async for event in client.follow(job.id):
                if event.kind == "PROCESS_START":
                    began = anyio.current_time()
                    await client.cancel(job.id)
                elif event.kind in measured:
                    measured[event.kind].append((anyio.current_time() - began) * 1_000)
    return measured


def main() -> None:
    """Print median and maximum of both latencies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50, help="number of jobs, one after another (default 50)")
    options = parser.parse_args()
    with cluster(spawn=2) as running:
        measured = anyio.run(measure, running.requests, str(running.home), options.jobs)
    print(f"cancel of a running `sleep 1000`, {options.jobs} times:")
    for kind, taken_ms in measured.items():
        print(f"  to {kind:12} median {median(taken_ms):.1f} ms   max {max(taken_ms):.1f} ms")


if __name__ == "__main__":
    main()
