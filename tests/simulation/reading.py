"""Reads what is left when a run is over, simulated or not, as any client may."""

from __future__ import annotations

from collections.abc import AsyncIterator

from airunner.client.client import Client
from airunner.protocol.job import JobSummary


async def all_jobs(client: Client) -> AsyncIterator[JobSummary]:
    """Every job of the tenant, the newest first."""
    before: str | None = None
    while True:
        page = await client.list_jobs(before=before, page_size=100)
        for job in page.jobs:
            yield job
        if not page.more:
            return
        before = page.jobs[-1].id
