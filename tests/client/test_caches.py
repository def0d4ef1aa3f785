"""Caches through the wire: who may change what a job restores, and what one tenant finds out about another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from airunner.certs.principal import ALL_ROLES, Principal
from airunner.certs.sealed import workspace_key
from airunner.client.client import Client
from airunner.completing import _BROKERS
from airunner.protocol.blobs import Slice, blob_id, packed
from airunner.protocol.cacherequests import GetCache, PutCache
from airunner.protocol.caches import Cache, CacheEntry, SaveWhen
from airunner.protocol.errors import BadRequest, Forbidden, NotFound, PeerError, StaleToken
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Result
from airunner.protocol.message import Asking, LeaseRef, Message
from airunner.protocol.replies import JobLease
from airunner.protocol.requests import (
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    GetBlob,
    HaveBlobs,
    PutBlob,
    RetryJob,
)
from tests.client.wire import brokered
from tests.client.working import blobs_in_memory
from tests.virtualtime import real_time  # noqa: F401 - a fixture: files are written in threads, which no virtual clock sees

KEY = "5ac1"
QUEUES, LABELS, TENANTS = ("ci", "deploy"), ("default", "release"), ("acme", "umbrella")
STEPS = 60


class Tokens:
    """Authority for tokens such as `acme release,default`: a tenant, and the labels of caches that it may save."""

    def known(self, token: bytes, now_s: float) -> Principal:
        return self.verify(token, now_s)

    def verify(self, token: bytes, now_s: float) -> Principal:
        tenant, _, labels = token.decode().partition(" ")
        scope = frozenset(labels.split(",")) if labels else frozenset[str]()
        return Principal("s", tenant, ALL_ROLES, now_s + 60, cache_labels=scope)


class Stage:
    """A client whose token changes, and agents of a few lines."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.token = b"acme"
        self._seed = 0

    async def ask(self, request: Asking[Message]) -> Message:
        return await self.client._entered.channel.ask(request)

    async def submit(self, *caches: Cache, token: str, queue: str = "ci") -> str:
        self.token = token.encode()
        spec = JobSpec(command="true", queue=queue, caches=caches)
        return (await self.client._entered.channel.ask(EnqueueJob(jobs=(spec,)))).job_ids[0]

    async def lease(self, tenant: str, queue: str = "ci") -> JobLease:
        self.token = tenant.encode()
        self._seed += 1
        seed = self._seed.to_bytes(32, "big")
        request = DequeueJob(agent="a", queues=(queue,), visibility_ms=300_000, wait_ms=30_000, token_seed=seed)
        return (await self.client._entered.channel.ask(request)).leases[0]

    async def save(self, lease: LeaseRef, label: str, content: bytes, name: str = "go", key: str = KEY) -> None:
        blob = packed(content)
        await self.ask(HaveBlobs(lease=lease, ids=(blob.id,)))
        await self.ask(PutBlob(lease=lease, blobs=(blob,)))
        index = (Slice(blob.id, 0, len(content)),)
        await self.ask(PutCache(lease=lease, label=label, name=name, key=key, size_bytes=1, index=index, ids=blob.id))

    async def found(self, lease: LeaseRef, label: str, name: str = "go", key: str = KEY) -> CacheEntry | None:
        request = GetCache(lease=lease, label=label, name=name, key=key)
        return (await self.client._entered.channel.ask(request)).entry

    async def end(self, lease: LeaseRef) -> None:
        await self.ask(CompleteJob(lease=lease, event_count=0, result=Result(exit_code=0)))


@asynccontextmanager
async def staged(secret: bytes = b"") -> AsyncIterator[Stage]:
    stages: list[Stage] = []
    async with brokered(blobs_in_memory(), Tokens(), lambda: stages[0].token, secret) as (_, client):
        stages.append(Stage(client))
        yield stages[0]


def cache(label: str = "default", **fields: object) -> Cache:
    return Cache(**{"name": "go", "paths": ("~/go",), "label": label, "save": SaveWhen.ALWAYS, **fields})  # type: ignore[arg-type]


async def test_a_tenants_agents_get_one_key_for_names_of_workspaces_from_all_brokers_with_one_secret() -> None:
    async def key(secret: bytes, tenant: str, *caches: Cache) -> bytes:
        async with staged(secret) as stage:
            await stage.submit(*caches, token=tenant)
            return (await stage.lease(tenant)).workspace_key

    secret = bytes(32)
    keys = [await key(secret, "acme", cache()), await key(secret, "acme", cache(name="npm"))]
    assert keys == [workspace_key(secret, "acme")] * 2
    assert {len(found) for found in keys} == {16}
    assert await key(secret, "umbrella", cache()) not in keys
    assert await key(b"x" * 32, "acme", cache()) not in keys
    assert await key(secret, "acme") == b"", "without a cache there is no use for it"
    assert await key(b"", "acme", cache()) == b"", "agents of this broker make their own"


@pytest.mark.parametrize("seed", range(5))
async def test_without_the_right_to_a_label_nothing_changes_that_another_job_restores(seed: int) -> None:
    random = Random(seed)
    kept: dict[tuple[str, str, str], bytes] = {}
    async with staged() as stage:
        for step in range(STEPS):
            tenant, queue = random.choice(TENANTS), random.choice(QUEUES)
            rights = random.sample(("default", "release", "*"), random.choice((0, 0, 1, 2)))
            token = f"{tenant} {','.join(rights)}".strip()
            asked, put = random.choice(LABELS), random.choice(LABELS)
            save = random.choice(list(SaveWhen))
            job = await stage.submit(cache(asked, save=save, restore=random.random() < 0.5), token=token, queue=queue)
            may = save is not SaveWhen.NEVER and (asked in rights or "*" in rights)
            lease = (await stage.lease(tenant, queue)).ref
            if random.random() < 0.3:  # what the token lacks that retries it, or the one that submitted it
                await stage.end(lease)
                others = random.sample(("default", "release"), random.choice((0, 1, 2)))
                stage.token = f"{tenant} {','.join(others)}".strip().encode()
                await stage.ask(RetryJob(job_id=job))
                may = may and asked in others
                lease = (await stage.lease(tenant, queue)).ref
            content = b"%d" % step
            try:
                await stage.save(lease, put, content)
            except Forbidden:
                allowed = False
            else:
                allowed = True
                kept[tenant, queue, put] = content
            assert allowed == (may and put == asked), (seed, step)
            await stage.end(lease)
            label = random.choice(LABELS)
            await stage.submit(cache(label, save=SaveWhen.NEVER), token=tenant, queue=queue)
            lease = (await stage.lease(tenant, queue)).ref
            entry = await stage.found(lease, label)
            expected = kept.get((tenant, queue, label))
            assert (None if entry is None else entry.index[0].blob) == (
                None if expected is None else blob_id(expected)
            ), (seed, step)
            await stage.end(lease)
    assert kept, "nothing was saved at all"


async def test_an_agent_gets_and_puts_only_what_the_job_of_its_lease_names() -> None:
    async with staged() as stage:
        await stage.submit(cache(), cache("release", paths=("~/other",), restore=False), token="acme *")
        lease = await stage.lease("acme")
        await stage.save(lease.ref, "default", b"one")
        await stage.save(lease.ref, "release", b"two")
        assert await stage.found(lease.ref, "default") is not None
        assert await stage.found(lease.ref, "release") is None, "the job restores none"
        assert await stage.found(lease.ref, "default", "cargo") is None
        with pytest.raises(Forbidden, match="cache cargo"):
            await stage.save(lease.ref, "default", b"three", "cargo")
        index = (Slice(blob_id(b"never"), 0, 1),)
        for ids, problem in ((b"", "claimed"), (b"odd", "ids")):
            with pytest.raises(BadRequest, match=problem):
                await stage.ask(
                    PutCache(lease=lease.ref, label="default", name="go", key=KEY, size_bytes=1, index=index, ids=ids)
                )
        await stage.end(lease.ref)
        with pytest.raises(StaleToken):
            await stage.found(lease.ref, "default")


async def test_caches_are_listed_by_place_and_removed_by_prefix_of_their_key() -> None:
    async with staged() as stage:
        client = stage.client
        names = [f"n{number:03}" for number in range(8)]
        await stage.submit(*(cache(name=name, paths=(name,)) for name in names), token="acme *")
        lease = await stage.lease("acme")
        for name in names:
            for key in (f"{number:02x}" for number in range(13)):
                await stage.save(lease.ref, "default", b"x", name, key)
        listed = [each async for each in client.caches()]
        assert [(each.name, each.key) for each in listed] == sorted((each.name, each.key) for each in listed)
        assert len(listed) == 104, "of two pages"
        assert [each.key async for each in client.caches("ci", "default", "n001", "0a")] == ["0a"]
        assert [each async for each in client.caches("deploy")] == []
        words = [word async for word in _BROKERS["caches"](client, "cache rm", "n")]
        assert words[-1] == ("n007", "queue ci, label default"), "a shell completes it"
        assert await client.remove_caches(name="n001", key="0") == 13
        assert await client.remove_caches(name="n001") == 0
        assert len([each async for each in client.caches()]) == 91
        stage.token = b"umbrella *"
        assert await client.remove_caches() == 0
        assert [each async for each in client.caches()] == []


async def test_no_answer_shows_a_tenant_what_another_has() -> None:
    """The same requests of a tenant get the same answers, whether another has the same blobs and caches or not."""

    async def answers(*, beside: bool) -> list[object]:
        async with staged() as stage:
            if beside:
                await stage.submit(cache(), token="umbrella *")
                other = await stage.lease("umbrella")
                await stage.save(other.ref, "default", b"secret")
            await stage.submit(cache(), token="acme *")
            lease = (await stage.lease("acme")).ref
            blob = packed(b"secret")
            index = (Slice(blob.id, 0, 6),)
            requests: list[Asking[Message]] = [
                GetCache(lease=lease, label="default", name="go", key=KEY),
                GetBlob(ids=(blob.id,)),
                PutCache(lease=lease, label="default", name="go", key=KEY, size_bytes=1, index=index, ids=blob.id),
                HaveBlobs(lease=lease, ids=(blob.id,)),
                PutCache(lease=lease, label="default", name="go", key=KEY, size_bytes=1, index=index, ids=blob.id),
                GetBlob(ids=(blob.id,)),
                PutBlob(lease=lease, blobs=(blob,)),
                GetBlob(ids=(blob.id,)),
                HaveBlobs(lease=lease, ids=(blob.id,)),
            ]
            said: list[object] = []
            for request in requests:
                try:
                    said.append(await stage.ask(request))
                except PeerError as error:
                    said.append((error.code, error.message))
            return said

    alone = await answers(beside=False)
    assert await answers(beside=True) == alone
    assert alone[1] == (NotFound.code, "this blob is not stored")
