"""Saved workspace of a job, as `show` and the job's page name it: the last one, and the command that begins there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airunner.client.client import Client
    from airunner.protocol.job import Job


async def saved_text(client: Client, job: Job) -> str:
    """Say what a job has last saved of its workspace, and how to begin there; empty if nothing."""
    from airunner.client.cli.wording import instant_text
    from airunner.protocol.events import Kept
    from airunner.protocol.sizes import bytes_text

    if not job.spec.keep or not job.attempt:
        return ""
    last = [event async for event in client.replay(job.id, kinds=("KEPT",))][-1:]
    for event in last:
        if isinstance(event.body, Kept):
            number = "1 file" if event.body.files == 1 else f"{event.body.files:,} files"
            saved = f"{number}, {bytes_text(event.body.size_bytes)}, at {instant_text(event.timestamp_ms)}"
            return f"{saved}: airunner continue {job.id} -- COMMAND" if job.state.terminal else saved
    return ""
