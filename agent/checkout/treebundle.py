"""Tree bundle of a job: what its repository lacks of its commit, read from the broker's blobs into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup

from airunner.agent.checkout.git import CheckoutFailed
from airunner.agent.launcher.refusal import refusal_in
from airunner.agent.workspace.workspace import Workspace, give
from airunner.protocol.blobs import Slice, TreeBundle
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import Forged, OperatorError, PeerError
from airunner.transport.files.pieces import Pieces, Source

HEAD_BYTES_MAX: Final = 65_536  # of a bundle: its signature, and a line for each base
_slices = msgspec.msgpack.Decoder(tuple[Slice, ...])


async def fetch_tree(tree: TreeBundle, workspace: Workspace, source: Source) -> Path:
    """Write the bundle of a tree to a file for git. Raises `CheckoutFailed`, `MachineRefused`."""
    bundle = workspace.temporary / "tree.bundle"
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        try:
            await _write(tree, bundle, source, group)
            if workspace.user is not None:
                give(workspace.user, bundle)
        except (PeerError, OperatorError, OSError) as error:
            failure = error
        group.cancel_scope.cancel()
    if isinstance(failure, OSError):
        raise (refusal_in(failure) or CheckoutFailed(f"{bundle} cannot be written: {failure.strerror}")) from failure
    if failure is not None:
        raise CheckoutFailed(f"the broker does not give the job's tree: {failure}") from failure
    return bundle


async def _write(tree: TreeBundle, file: Path, source: Source, group: TaskGroup) -> None:
    index = Pieces(source, group, tree.index)
    try:
        slices = _slices.decode(b"".join([await index.next_content() for _ in tree.index]))
    except UNDECODABLE as error:
        raise Forged("its list of pieces is broken") from error
    pieces = Pieces(source, group, slices)
    with file.open("xb") as bundle:
        for _ in slices:
            bundle.write(await pieces.next_content())


def bases_of(file: Path) -> list[str]:
    """Read which commits a bundle needs. Raises `OSError`, `ValueError`: it is no bundle."""
    with file.open("rb") as bundle:
        head, end, _ = bundle.read(HEAD_BYTES_MAX).partition(b"\n\n")
    signature, *lines = head.decode("ascii").split("\n")
    if not end or signature != "# v2 git bundle":
        raise ValueError("no bundle")
    return [line[1:].partition(" ")[0] for line in lines if line.startswith("-")]
