"""Folders of a tenant's objects in the blob store: their names, and what claims have in them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from airunner.protocol.blobs import ID_BYTES


def folder_of(name: str) -> str:
    """Return the folder of a tenant or a queue: no name has an equals sign, which stands for a slash."""
    return name.replace("/", "=")


def claims_of(tenant: str, job_id: str) -> str:
    """Return the folder of a job's claims."""
    return f"{folder_of(tenant)}/claims/{job_id}"


def ids_in(claim: bytes) -> Iterator[bytes]:
    """Yield the ids of a claim, which has them one after the other."""
    return (claim[at : at + ID_BYTES] for at in range(0, len(claim), ID_BYTES))
