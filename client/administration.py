"""Administration from Python: queues, their secrets, agents, brokers, and checks of logs; a part of `Client`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from airunner.client.batches import Batches, BatchIterator
from airunner.client.jobref import JobRef, id_of
from airunner.client.session import Session
from airunner.protocol import requests
from airunner.protocol.cacherequests import ListCaches, RemoveCaches
from airunner.protocol.caches import CacheSummary
from airunner.protocol.errors import CorruptLog
from airunner.protocol.replies import AgentSummary, BrokerSummary, QueueMode, QueueSummary, SecretSummary

if TYPE_CHECKING:
    from airunner.client.logcheck import LogCheck, SavedHead


class Administration(Session):
    """Administration methods of `Client`."""

    async def update_queue(self, queue: str, mode: QueueMode) -> None:
        """Open, pause or drain a queue.

        >>> await client.update_queue("nightly", QueueMode.PAUSED)
        >>> await client.update_queue("nightly", QueueMode.OPEN)
        """
        await self._ask(requests.UpdateQueue(queue=queue, mode=mode))

    async def set_secret(self, queue: str, name: str, box: bytes) -> None:
        """Set a secret for the jobs of a queue, sealed with `certs.queuekeys.seal_secret`."""
        await self._ask(requests.SetSecret(queue=queue, name=name, box=box))

    async def remove_secret(self, queue: str, name: str) -> None:
        """Remove a secret. Raises `NotFound`."""
        await self._ask(requests.RemoveSecret(queue=queue, name=name))

    def secrets(self, queue: str | None = None) -> BatchIterator[SecretSummary]:
        """List the names of sealed secrets, of all queues or of one, by queue and name."""
        first = requests.ListSecrets(queue=queue)
        return Batches(self._paged(first, lambda page: page.secrets, lambda secret: (secret.queue, secret.name)))

    def caches(
        self, queue: str | None = None, label: str | None = None, name: str | None = None, key: str | None = None
    ) -> BatchIterator[CacheSummary]:
        """List the versions of caches that jobs have saved, by queue, label, name and key; of a key its first digits.

        >>> [cache.name async for cache in client.caches("nightly")]
        []
        """
        first = ListCaches(queue=queue, label=label, name=name, key=key)
        return Batches(
            self._paged(first, lambda page: page.caches, lambda row: (row.queue, row.label, row.name, row.key))
        )

    async def remove_caches(
        self, queue: str | None = None, label: str | None = None, name: str | None = None, key: str | None = None
    ) -> int:
        """Remove the versions that `caches` lists with the same arguments; return how many there were."""
        return (await self._ask(RemoveCaches(queue=queue, label=label, name=name, key=key))).count

    def queues(self, after: str | None = None) -> BatchIterator[QueueSummary]:
        """List every queue that has jobs, finished jobs included, or is not open; by name, from after a name on.

        >>> "default" in [queue.queue async for queue in client.queues()]
        True
        """
        return Batches(
            self._paged(requests.ListQueues(after=after), lambda page: page.queues, lambda queue: queue.queue)
        )

    async def queue(self, name: str, *, tags: Mapping[str, str] | None = None) -> QueueSummary | None:
        """Get one of the `queues`; None: it has no jobs. With `tags`, `suitable` counts the jobs for such agents."""
        request = requests.ListQueues(queue=name, tags=None if tags is None else dict(tags))
        rows: Batches[QueueSummary] = Batches(self._paged(request, lambda page: page.queues, lambda row: row.queue))
        async with rows as listed:
            async for queue in listed:
                if queue.queue == name:  # an older broker lists all queues
                    return queue
        return None

    def agents(self, after: str | None = None) -> BatchIterator[AgentSummary]:
        """List every agent that was active in the last minutes or that runs a job, by name, from after a name on.

        >>> [agent.slots async for agent in client.agents()]
        [4]
        """
        first = requests.ListAgents(after=after)
        return Batches(self._paged(first, lambda page: page.agents, lambda agent: agent.name))

    async def brokers(self) -> tuple[BrokerSummary, ...]:
        """List the brokers of the store; none: the broker that was asked has a store of its own."""
        return (await self._ask(requests.ListBrokers())).brokers

    async def check_log(self, job: JobRef, saved: SavedHead | None = None) -> LogCheck:
        """Check a job's log so far, event by event, against its agents' signatures and a saved head, if given.

        `LogCheck.faults` names what was changed. Raises `NotFound`.

        >>> job = await client.wait(await client.submit(command="true"))
        >>> (await client.check_log(job)).faults
        []
        """
        from airunner.certs.signing import is_signed
        from airunner.client.logcheck import LogCheck

        found = await self._ask(requests.GetJob(job_id=id_of(job)))
        check = LogCheck(found.job, is_signed, saved)
        size = self._entered.channel.request_size
        while not check.done:
            try:
                page = await self._ask(check.request(size.bytes_max), smaller=lambda: check.request(size.bytes_max))
            except CorruptLog:
                check.refused()
            else:
                check.replayed(page)
        return check
