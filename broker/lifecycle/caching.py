"""Cache requests of agents: judged by what the job of the lease may restore and save, never by what agents say."""

from __future__ import annotations

from airunner.broker.lifecycle.commands import BlobsAsked, TenantRequest
from airunner.broker.lifecycle.reading import leased
from airunner.broker.store.contract import Engine
from airunner.broker.store.rows import JobRow
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.cacherequests import GetCache, PutCache
from airunner.protocol.caches import Cache, SaveWhen
from airunner.protocol.errors import CorruptLog, Forbidden
from airunner.protocol.job import decode_spec
from airunner.protocol.replies import CacheFound


def find_cache(engine: Engine, command: TenantRequest, request: GetCache) -> BlobsAsked | CacheFound:
    """Look for a version of a cache that the job restores. Raises `NotFound`, `StaleToken`, `CorruptLog`."""
    job = leased(engine, command.tenant, request.lease, spec=True)
    cache = _cache_of(engine, job, request)
    return BlobsAsked(request, queue=job.queue) if cache is not None and cache.restore else CacheFound()


def save_cache(engine: Engine, command: TenantRequest, request: PutCache) -> BlobsAsked:
    """Save a version of a cache. Raises `Forbidden`: the job saves none; `NotFound`, `StaleToken`, `CorruptLog`."""
    job = leased(engine, command.tenant, request.lease, spec=True)
    cache = _cache_of(engine, job, request)
    if cache is None or cache.save is SaveWhen.NEVER:
        raise Forbidden(f"the job may not save a cache {request.name} with the label {request.label}")
    return BlobsAsked(request, queue=job.queue)


def _cache_of(engine: Engine, job: JobRow, request: GetCache | PutCache) -> Cache | None:
    """Find the cache of a job that a request names. Raises `CorruptLog`: the job's spec cannot be decoded."""
    try:
        caches = decode_spec(job.spec).caches
    except UNDECODABLE as error:
        engine.set_aside(job.job_id)
        raise CorruptLog from error
    named = (each for each in caches if (each.label, each.name) == (request.label, request.name))
    return next(named, None)
