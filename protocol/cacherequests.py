"""Requests about caches: agents get and put versions of them by lease; clients list and remove them. See `caches`."""

from __future__ import annotations

from airunner.protocol import replies
from airunner.protocol.caches import CacheIds, CacheIndex, CacheKey, CacheName
from airunner.protocol.message import Asking, LeaseRef
from airunner.protocol.names import Name, Natural


class GetCache(Asking[replies.CacheFound], frozen=True, kw_only=True):
    """Get the version of a cache that the job of a lease restores: of the key, else the newest. Role `work`."""

    lease: LeaseRef
    label: CacheName
    name: CacheName
    key: CacheKey


class PutCache(Asking[replies.CachePut], frozen=True, kw_only=True):
    """Save a version of a cache, whole or not at all; the job of the lease must be one that saves it. Role `work`.

    `index` has the slices of the manifest, and `ids` the ids of all blobs that the version needs, one after the other;
    the job has claimed and put them. A version of the same key is replaced.
    """

    lease: LeaseRef
    label: CacheName
    name: CacheName
    key: CacheKey
    size_bytes: Natural
    index: CacheIndex
    ids: CacheIds


class ListCaches(Asking[replies.CachesListed], frozen=True, kw_only=True):
    """List versions of caches, by queue, label, name and key; `after` is the last of the page before. Role `read`."""

    queue: Name | None = None
    label: CacheName | None = None
    name: CacheName | None = None
    key: CacheKey | None = None  # with which the keys begin
    after: tuple[Name, CacheName, CacheName, CacheKey] | None = None


class RemoveCaches(Asking[replies.CachesRemoved], frozen=True, kw_only=True):
    """Remove the versions that a ListCaches with the same fields lists. Role `admin`."""

    queue: Name | None = None
    label: CacheName | None = None
    name: CacheName | None = None
    key: CacheKey | None = None
