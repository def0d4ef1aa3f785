"""Bot that reacts to failures: retries a failed checkout once, and posts the end of the log of every other failed job.

python examples/failurebot.py --webhook https://chat.example.org/hooks/builds

Without --webhook it prints what it would post.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator
from urllib.request import Request, urlopen

import anyio

from airunner import Client, Job, JobState, JobSummary, NotFound, Reason


async def new_jobs(client: Client, every_s: float) -> AsyncIterator[JobSummary]:
    """Yield each job that is submitted from now on, whatever its state is by then."""
    newest = [job.id for job in (await client.list_page(page_size=1)).jobs]
    print("watching for new jobs", flush=True)
    while True:
        found: list[JobSummary] = []
        async with client.list() as jobs:
            async for job in jobs:  # newest first
                if job.id in newest:
                    break
                found.append(job)
        newest = [job.id for job in found[:1]] or newest
        for job in reversed(found):
            yield job
        await anyio.sleep(every_s)


async def react(client: Client, job_id: str, webhook: str) -> None:
    """Wait for a job to end, and do something about its failure."""
    try:
        job = await client.wait(job_id)
    except NotFound:  # it was removed
        return
    if job.state is not JobState.FAILED or job.result is None:
        return
    match job.result.reason:
        case Reason.CHECKOUT_FAILED if job.origin is None:  # a job that is a retry has an origin
            again = await client.retry(job, request_id=f"failurebot {job.id}")
            await post(webhook, f"{title(job)}: the checkout failed; trying again as {again.id}")
        case reason:
            last = [line.text async for line in client.logs(job, tail=5)]
            await post(webhook, "\n".join([f"{title(job)}: {reason or job.state} {job.exit_status}", *last]))


def title(job: Job) -> str:
    """Name a job: its name or command, and its id."""
    return f"{job.spec.name or job.spec.command} ({job.id[:8]})"


async def post(webhook: str, text: str) -> None:
    """Post a message as chat services take them; the request blocks, and so has a thread of its own."""
    if not webhook:
        print(text, flush=True)
        return
    message = Request(webhook, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"})
    (await anyio.to_thread.run_sync(urlopen, message)).close()


async def main(webhook: str, every_s: float) -> None:
    """React to failures until this is interrupted."""
    async with Client() as client, anyio.create_task_group() as group:
        async for job in new_jobs(client, every_s):
            group.start_soon(react, client, job.id, webhook)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--webhook", default="")
    parser.add_argument("--every-s", type=float, default=5, help="seconds between two looks at the list of jobs")
    given = parser.parse_args()
    anyio.run(main, given.webhook, given.every_s)
