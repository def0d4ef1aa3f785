"""Start latency of a job, as a client sees it, with real processes, CURVE sockets and fsync.

Jobs are submitted at a steady rate, and each is followed. The latency is measured from before `submit` until the client
receives PROCESS_START. Run it with `python -m bench.latency [--rate 50] [--seconds 10]`.
"""

from __future__ import annotations

import argparse
from statistics import median, quantiles

import anyio

from airunner import Client
from bench.cluster import cluster


async def measure(requests: str, home: str, rate: float, seconds: float, token: str | None = None) -> list[float]:
    """Measure the start latency, in ms, of each of rate × seconds jobs."""
    measured: list[float] = []

    async def start(client: Client) -> None:
        began = anyio.current_time()
        job = await client.submit(command="true")
        started = [anyio.current_time() async for event in client.follow(job.id) if event.kind == "PROCESS_START"]
        measured.extend((instant - began) * 1_000 for instant in started)

    async with Client(requests, home=home, token=token) as client, anyio.create_task_group() as group:
        await start(client)  # the first job opens the connections
        measured.clear()
        begin = anyio.current_time()
        for number in range(int(rate * seconds)):
            await anyio.sleep_until(begin + number / rate)
            group.start_soon(start, client)
    return measured


def main() -> None:
    """Print the distribution of the latencies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=50, help="jobs a second (default 50)")
    parser.add_argument("--seconds", type=float, default=10, help="how long jobs are submitted (default 10 seconds)")
    parser.add_argument("--spawn", type=int, default=8, help="slots of the agent (default 8)")
    options = parser.parse_args()
    with cluster(spawn=options.spawn) as running:
        measured = anyio.run(measure, running.requests, str(running.home), options.rate, options.seconds)
    percentiles = quantiles(measured, n=100)
    print(f"submit to PROCESS_START, {len(measured)} jobs at {options.rate:g}/s:")
    print(
        f"  median {median(measured):.2f} ms   p90 {percentiles[89]:.2f} ms   "
        f"p99 {percentiles[98]:.2f} ms   max {max(measured):.2f} ms"
    )


if __name__ == "__main__":
    main()
