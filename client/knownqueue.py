"""Queue that is known: it has jobs, is not open, or is served by an agent; another one may be a mistyped name."""

from __future__ import annotations

from contextlib import aclosing

from airunner.client.client import Client


async def is_known(client: Client, queue: str) -> bool:
    """Return whether a queue has jobs, is not open, or is served by an agent. Raises the errors of `Client`."""
    if await client.queue(queue) is not None:
        return True
    async with aclosing(client.agents()) as agents:
        return any([queue in agent.queues async for agent in agents])
