"""Answers about caches: of agents that get and put versions, and of clients that list and remove them."""

from __future__ import annotations

from typing import Final

from airunner.broker.blobs.caches import CacheStore, Place, Saved
from airunner.broker.lifecycle.commands import BlobsAsked, TenantRequest
from airunner.protocol.blobs import ID_BYTES
from airunner.protocol.cacherequests import GetCache, ListCaches, PutCache, RemoveCaches
from airunner.protocol.caches import CacheSummary
from airunner.protocol.errors import BadRequest
from airunner.protocol.replies import CacheFound, CachePut, CachesListed, CachesRemoved, Reply

PAGE_MAX: Final = 100  # versions in a list


def answer_about_caches(store: CacheStore, command: TenantRequest, asked: BlobsAsked, now_ms: int) -> Reply:
    """Answer a request about caches. Raises `PeerError`."""
    tenant, request = command.tenant, asked.request
    match request:
        case GetCache(label=label, name=name, key=key):
            return CacheFound(entry=store.find(tenant, Place(asked.queue, label, name, key), now_ms))
        case PutCache():
            store.save(tenant, command.request_id, _saved(request, asked.queue), now_ms)
            return CachePut()
        case ListCaches(after=after):
            found = [each for each in _listed(store, command, request) if after is None or _place_of(each) > after]
            return CachesListed(caches=tuple(found[:PAGE_MAX]), more=len(found) > PAGE_MAX)
        case RemoveCaches():
            places = map(_place_of, _listed(store, command, request))
            return CachesRemoved(count=store.remove(tenant, places))
        case _:
            raise AssertionError("not a request about caches")


def _saved(request: PutCache, queue: str) -> Saved:
    if len(request.ids) % ID_BYTES:
        raise BadRequest(f"ids: expected ids of {ID_BYTES} bytes, one after the other")
    place = Place(queue, request.label, request.name, request.key)
    return Saved(place, request.lease.job_id, request.size_bytes, request.index, request.ids)


def _listed(store: CacheStore, command: TenantRequest, request: ListCaches | RemoveCaches) -> list[CacheSummary]:
    """List the versions that a request is about, in the queues that its sender may see."""

    def wanted(cache: CacheSummary) -> bool:
        return (
            (command.queues is None or cache.queue in command.queues)
            and request.queue in (None, cache.queue)
            and request.label in (None, cache.label)
            and request.name in (None, cache.name)
            and cache.key.startswith(request.key or "")
        )

    return [cache for cache in store.summaries(command.tenant) if wanted(cache)]


def _place_of(cache: CacheSummary) -> Place:
    return Place(cache.queue, cache.label, cache.name, cache.key)
