"""Two tenants with the same content: neither learns from a broker what the other has, by an answer or by its work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from airunner.broker.blobs.store import BlobStore
from airunner.protocol.blobs import Blob, packed
from airunner.protocol.errors import NotFound
from tests.acceptance import holding
from tests.acceptance.running import RunningBroker
from tests.acceptance.test_plain_msgpack import Plain
from tests.broker.blobs.interleaving import InterleavedObjects, Interleaving


def answers(tenant: Plain, blob: Blob) -> Iterator[Any]:
    """What a tenant is answered that uploads a blob, and asks for it before and after."""
    have = {"type": "HaveBlobs", "upload": bytes(16), "ids": [blob.id]}
    get = {"type": "GetBlob", "ids": [blob.id]}
    for request in (get, have, {"type": "PutBlob", "blobs": [[blob.id, blob.content]]}, have, get):
        yield tenant.ask(request)


def test_the_answers_about_a_blob_are_the_same_whether_another_tenant_has_it_or_not(door: RunningBroker) -> None:
    shared, own = packed(os.urandom(1_000)), packed(os.urandom(1_000))
    with Plain(door, holding.token(door, "first")) as first, Plain(door, holding.token(door, "second")) as second:
        assert [answer["type"] for answer in answers(first, shared)][-1] == "BlobsGot"
        seen = [answer["type"] for answer in answers(second, shared)]
        assert seen == [answer["type"] for answer in answers(second, own)]
        assert seen == ["Refused", "BlobsMissing", "BlobsPut", "BlobsMissing", "BlobsGot"]


class CountedObjects(InterleavedObjects):
    """Objects that record what is done with them, and how large what they return is."""

    def __init__(self) -> None:
        super().__init__(Interleaving(0))
        self.done: list[tuple[str, int]] = []

    def put(self, objects: Mapping[str, bytes]) -> None:
        self.done += [("put", len(content)) for content in objects.values()]
        super().put(objects)

    def get(self, key: str) -> bytes | None:
        found = super().get(key)
        self.done.append(("get", len(found or b"")))
        return found

    def missing(self, keys: Sequence[str]) -> tuple[int, ...]:
        found = super().missing(keys)
        self.done.append(("missing", len(found)))
        return found

    def keys(self, prefix: str) -> Iterator[str]:
        found = list(super().keys(prefix))
        self.done.append(("keys", len(found)))
        yield from found


def work(others: Sequence[Blob], blob: Blob) -> list[tuple[str, int]]:
    """What is done for a tenant that uploads a blob, while another tenant has `others`."""
    objects = CountedObjects()
    store = BlobStore(objects)
    store.put("first", others)
    objects.done.clear()
    with pytest.raises(NotFound):
        store.get("second", [blob.id])
    store.claim_upload("second", bytes(16), 1, [blob.id])
    store.put("second", [blob])
    store.get("second", [blob.id])
    store.sweep("second")
    return objects.done


def test_the_work_for_a_tenant_is_the_same_whether_another_has_its_blob_or_not() -> None:
    blob = packed(b"content")
    assert work([], blob) == work([blob], blob) != []
