"""Tree bundle of a job: what its repository lacks of its commit, read from the broker's blobs into a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from anyio import to_thread

from airunner.agent.checkout.git import CheckoutFailed
from airunner.agent.launcher.refusal import refusal_in
from airunner.agent.workspace.workspace import Workspace, give
from airunner.protocol.blobs import IDS_MAX, Slice, TreeBundle, unpacked
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import Forged, PeerError
from airunner.protocol.replies import BlobsGot
from airunner.protocol.requests import GetBlob

HEAD_BYTES_MAX: Final = 65_536  # of a bundle: its signature, and a line for each base
Get = Callable[[GetBlob], Awaitable[BlobsGot]]
_slices = msgspec.msgpack.Decoder(tuple[Slice, ...])


async def fetch_tree(tree: TreeBundle, workspace: Workspace, get: Get) -> Path:
    """Write the bundle of a tree to a file for git. Raises `CheckoutFailed`, `MachineRefused`."""
    bundle = workspace.temporary / "tree.bundle"
    try:
        await write_bundle(tree, bundle, get)
        if workspace.user is not None:
            give(workspace.user, bundle)
    except PeerError as error:
        raise CheckoutFailed(f"the broker does not give the job's tree: {error.message}") from error
    except OSError as error:
        raise (refusal_in(error) or CheckoutFailed(f"{bundle} cannot be written: {error.strerror}")) from error
    return bundle


async def write_bundle(tree: TreeBundle, file: Path, get: Get) -> None:
    """Write the bundle of a tree to a file.

    Raises `OSError`; `PeerError`: the broker refuses; `Forged`: what it has is not what was uploaded.
    """
    index = bytearray()
    await _read(tree.index, get, index.extend)
    try:
        slices = _slices.decode(index)
    except UNDECODABLE as error:
        raise Forged("the tree's list of pieces is broken") from error
    with file.open("xb") as bundle:
        await _read(slices, get, bundle.write)


async def _read(slices: Sequence[Slice], get: Get, write: Callable[[bytes], object]) -> None:
    at = 0
    while at < len(slices):
        wanted = slices[at : at + IDS_MAX]
        got = await get(GetBlob(ids=tuple(part.blob for part in wanted)))
        for blob, part in zip(got.blobs, wanted, strict=False):
            if blob.id != part.blob:
                raise Forged("another piece of the tree came than was asked for")
            piece = await to_thread.run_sync(unpacked, blob)
            write(piece[part.offset : part.offset + part.length])
            at += 1


def bases_of(file: Path) -> list[str]:
    """Read which commits a bundle needs. Raises `OSError`, `ValueError`: it is no bundle."""
    with file.open("rb") as bundle:
        head, end, _ = bundle.read(HEAD_BYTES_MAX).partition(b"\n\n")
    signature, *lines = head.decode("ascii").split("\n")
    if not end or signature != "# v2 git bundle":
        raise ValueError("no bundle")
    return [line[1:].partition(" ")[0] for line in lines if line.startswith("-")]
