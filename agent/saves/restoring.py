"""Restoring of a save: puts the files that another job has kept into a workspace, over what is checked out there.

What stands at the paths that were kept is removed first, so that nothing is there that the other job had removed.
No link is followed, and nothing is written or removed outside of the workspace.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup

from airunner.agent.artifacts.tree import Tree
from airunner.agent.artifacts.uploading import FINAL, Uplink
from airunner.agent.workspace.workspace import Workspace, remove_workspace
from airunner.protocol.blobs import PIECE_BYTES_MAX, Slice
from airunner.protocol.errors import Forged, OperatorError, PeerError
from airunner.protocol.filefields import GIT_FOLDER
from airunner.protocol.replies import BlobsGot
from airunner.protocol.requests import GetBlob
from airunner.protocol.requestsize import RequestSize
from airunner.protocol.savemanifest import CHECKOUT, HOME, MANIFEST_BYTES_MAX, Manifest, decode
from airunner.transport.backoff import retry
from airunner.transport.files.pieces import Pieces
from airunner.transport.files.restoring import Part, Restorer

PORTION_BYTES: Final = PIECE_BYTES_MAX  # written together in a thread
PORTION_PARTS: Final = 256


class NotRestored(Exception):
    """A save could not be restored; the message says why."""


class BrokersBlobs:
    """Source of the broker's blobs over the uplink: what it refuses for now is repeated; `say` gets one line then."""

    def __init__(self, uplink: Uplink, say: Callable[[str], None]) -> None:
        self._uplink = uplink
        self._say = say
        self._said = False

    @property
    def request_size(self) -> RequestSize:
        """How much a request may move."""
        return self._uplink.channel.request_size

    async def ask(self, request: GetBlob, *, smaller: Callable[[], GetBlob] | None = None) -> BlobsGot:
        """Get blobs. Raises the refusals in `FINAL`."""
        channel, newest = self._uplink.channel, smaller or (lambda: request)
        return await retry(
            lambda: channel.ask(newest(), smaller=smaller), self._uplink.backoff(), self._refused, final=FINAL
        )

    def _refused(self, error: PeerError) -> None:
        if not self._said:
            self._say(f"files wait for the broker: {error.message}")
        self._said = True


async def restore(
    slices: Sequence[Slice], workspace: Workspace, uplink: Uplink, say: Callable[[str], None]
) -> Manifest:
    """Restore the save of a manifest with these slices, and return the manifest; `say` gets a line if it waits.

    Raises `NotRestored`, `OSError`.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        try:
            return await _Restoring(workspace, uplink, group, say).run(slices)
        except (PeerError, OperatorError, OSError) as error:
            failure = error
        finally:
            group.cancel_scope.cancel()
    if isinstance(failure, OSError):
        raise failure
    if isinstance(failure, OperatorError) and isinstance(failure.__cause__, OSError):
        raise failure.__cause__
    raise NotRestored(str(failure)) from failure


class _Restoring:
    """Restoring of one save; `group` sends the requests."""

    def __init__(self, workspace: Workspace, uplink: Uplink, group: TaskGroup, say: Callable[[str], None]) -> None:
        self._workspace = workspace
        self._uplink = uplink
        self._group = group
        self._source = BrokersBlobs(uplink, say)

    async def run(self, slices: Sequence[Slice]) -> Manifest:
        """Restore the save. Raises `PeerError`, `OperatorError`, `OSError`."""
        offload = self._uplink.offload
        if sum(each.length for each in slices) > MANIFEST_BYTES_MAX:
            raise Forged("the list of its files is too large")
        manifest = decode(b"".join([content async for content in self._contents(slices)]))
        user = self._workspace.user
        owner = None if user is None else (user.uid, user.gid)
        restorer = Restorer(self._workspace.root, owner, free_links=True)
        await offload(lambda: clear(self._workspace.root, manifest))
        await offload(lambda: restorer.check(manifest.entries))
        try:
            async with aclosing(self._portions(manifest)) as portions:
                async for portion in portions:
                    await offload(partial(restorer.write, portion))
            await offload(restorer.finish)
        finally:
            restorer.close()
        return manifest

    async def _contents(self, slices: Sequence[Slice]) -> AsyncGenerator[bytes]:
        pieces = Pieces(self._source, self._group, slices)
        for _ in slices:
            yield await pieces.next_content()

    async def _portions(self, manifest: Manifest) -> AsyncGenerator[list[Part]]:
        """Yield the parts of files that are written together. Raises `Forged`: one is outside of what was kept."""
        portion: list[Part] = []
        size_bytes = 0
        contents = self._contents([each for entry in manifest.entries for each in entry.slices])
        async with aclosing(contents):
            for entry in manifest.entries:
                got_bytes = 0
                for _ in entry.slices:
                    content = await anext(contents)
                    got_bytes += len(content)
                    portion.append(Part(entry, content, ended=False))
                    size_bytes += len(content)
                    if size_bytes >= PORTION_BYTES or len(portion) >= PORTION_PARTS:
                        yield portion
                        portion, size_bytes = [], 0
                if got_bytes != entry.size_bytes:
                    raise Forged(f"{entry.path} has {got_bytes:,} bytes, not {entry.size_bytes:,}")
                portion.append(Part(entry, b"", ended=True))
        yield portion


def clear(root: Path, manifest: Manifest) -> None:
    """Remove what stands at the paths of a workspace, or in the way of what is kept there, such as a link to a folder.

    Raises `OSError`, `Forged`: a path is none of a workspace.
    """
    with Tree(root) as tree:
        for path in manifest.paths:
            folder, _, name = path.rpartition("/")
            if path.partition("/")[0] not in (CHECKOUT, HOME) or ".." in path.split("/"):
                raise Forged(f"{path} is no path of a workspace")
            if not folder:
                with os.scandir(tree.folder(path)) as entries:
                    names = [entry.name for entry in entries if (path, entry.name) != (CHECKOUT, GIT_FOLDER)]
                for inner in names:
                    _remove(tree, path, inner)
                continue
            try:
                _remove(tree, folder, name)
            except FileNotFoundError:
                pass
            except NotADirectoryError:
                if any(entry.path == path or entry.path.startswith(f"{path}/") for entry in manifest.entries):
                    _remove_above(tree, folder)


def _remove_above(tree: Tree, folder: str) -> None:
    """Remove the first on the path of a folder that is none."""
    names = folder.split("/")
    for depth, name in enumerate(names):
        above = tree.folder("/".join(names[:depth]))
        if not stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=above)
            return


def _remove(tree: Tree, folder: str, name: str) -> None:
    """Remove one of a folder, which its descriptor names: no link in the folder's path is followed."""
    left = remove_workspace(Path(f"/proc/self/fd/{tree.folder(folder)}/{name}"))
    if left:
        raise OSError(0, f"{folder}/{name} cannot be removed: {left[0].why}")
