"""Storing of saves: what has changed since the last one is read and sent, and then the manifest of everything.

A file whose stamp is that of the last save keeps its slices: it is not read again. Of the others the broker gets the
pieces that it lacks. Programs that write a file in place while it is read leave it there as it was read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.agent.artifacts.flow import Flow
from airunner.agent.artifacts.packing import Packed, pack
from airunner.agent.artifacts.tree import Tree
from airunner.agent.artifacts.uploading import Uplink, Upload
from airunner.agent.launcher.refusal import refusal_in
from airunner.agent.saves.looking import Look, Seen, Stamp, TooMuch
from airunner.protocol.blobs import Slice
from airunner.protocol.message import LeaseRef
from airunner.protocol.printable import escaped
from airunner.protocol.savemanifest import MANIFEST_BYTES_MAX, Entry, Manifest, encode, pieces_of, size_of

_GIB: Final = 1 << 30
_Known = tuple[Stamp, tuple[Slice, ...]]


class Save(Struct, frozen=True):
    """Save of a workspace: how many files it has, their size, and the slices of its manifest."""

    files: int
    size_bytes: int
    slices: tuple[Slice, ...]


class Storing:
    """Storing of the saves of one attempt: of `paths` below the folder `root`, of at most `bytes_max` bytes each.

    `owner`: see `Look`; `say` writes a line into the log.
    """

    def __init__(
        self,
        uplink: Uplink,
        lease: LeaseRef,
        say: Callable[[str], None],
        root: Path,
        paths: tuple[str, ...],
        bytes_max: int,
        owner: int | None = None,
    ) -> None:
        self._uplink = uplink
        self._lease = lease
        self._say = say
        self._root = root
        self._paths = paths
        self._bytes_max = bytes_max
        self._owner = owner
        self._known: dict[str, _Known] = {}
        self.left_out: list[str] = []  # of the last save, in words

    async def store(self) -> Save:
        """Save what is there now. Raises, alone or in a group, `TooMuch`, `OSError`, and as `Upload.store`."""
        with Tree(self._root) as tree:
            look = await self._uplink.offload(lambda: self._look(tree))
            changed = [seen for seen in look.seen if seen.has_content and self._slices_of(seen) is None]
            stored: dict[str, Packed[Seen]] = {}

            async def record(packed: Packed[Seen]) -> None:
                stored[packed.key.path] = packed

            await Flow(self._uplink, pack(_reading(tree, changed, look.left_out), None), self._upload(), record).run()
        entries = [entry for seen in look.seen if (entry := self._entry(seen, stored)) is not None]
        if size_of(entries) > self._bytes_max:
            raise TooMuch(self._too_large())
        slices = await self._store_manifest(Manifest(self._paths, tuple(entries)))
        self._learn(look.seen, entries)
        self.left_out = look.left_out
        return Save(sum(entry.kind != "folder" for entry in entries), size_of(entries), slices)

    async def learn(self, manifest: Manifest) -> None:
        """Learn the slices of files that were just restored, so that those which do not change are not read again."""
        with Tree(self._root) as tree:
            look = await self._uplink.offload(lambda: self._look(tree))
        restored = {(entry.path, entry.mtime_ns, entry.size_bytes): entry for entry in manifest.entries}
        for seen in look.seen:
            entry = restored.get((seen.path, seen.stamp.mtime_ns, seen.stamp.size_bytes))
            if entry is not None and seen.has_content:
                self._known[seen.path] = seen.stamp, entry.slices

    def _look(self, tree: Tree) -> Look:
        look = Look(tree, self._owner)
        for path in self._paths:
            look.at(path)
        if sum(seen.stamp.size_bytes for seen in look.seen if seen.has_content) > self._bytes_max:
            raise TooMuch(self._too_large())
        return look

    def _too_large(self) -> str:
        return f"it has more than {self._bytes_max / _GIB:g} GiB, which `airunner agent --artifact-gib` allows"

    def _slices_of(self, seen: Seen) -> tuple[Slice, ...] | None:
        """Return the slices of a file that has not changed since the last save."""
        known = self._known.get(seen.path)
        return known[1] if known is not None and known[0] == seen.stamp else None

    def _entry(self, seen: Seen, stored: dict[str, Packed[Seen]]) -> Entry | None:
        """Make the entry of a file, folder or link; None: the file was gone, or could not be read."""
        if not seen.has_content:
            return Entry(seen.path, seen.mode, seen.stamp.mtime_ns, target=seen.target)
        if (packed := stored.get(seen.path)) is not None:
            return Entry(seen.path, seen.mode, seen.stamp.mtime_ns, packed.size_bytes, slices=packed.slices)
        if (slices := self._slices_of(seen)) is not None:
            return Entry(seen.path, seen.mode, seen.stamp.mtime_ns, seen.stamp.size_bytes, slices=slices)
        return None

    def _learn(self, seen: Sequence[Seen], entries: Sequence[Entry]) -> None:
        slices = {entry.path: entry.slices for entry in entries}
        self._known = {
            each.path: (each.stamp, slices[each.path])
            for each in seen
            if each.has_content and each.certain and each.path in slices
        }

    async def _store_manifest(self, manifest: Manifest) -> tuple[Slice, ...]:
        raw = await self._uplink.offload(lambda: encode(manifest))
        if len(raw) > MANIFEST_BYTES_MAX:
            raise TooMuch(f"the list of its files has more than {MANIFEST_BYTES_MAX >> 20} MiB")
        slices: list[Slice] = []

        async def record(packed: Packed[None]) -> None:
            slices.extend(packed.slices)

        await Flow(self._uplink, pack([(None, pieces_of(raw))]), self._upload(), record).run()
        return tuple(slices)

    def _upload(self) -> Upload:
        return Upload(self._uplink, self._lease, self._say, "saved workspaces")


def _reading(tree: Tree, files: Sequence[Seen], left_out: list[str]) -> Iterator[tuple[Seen, Iterator[bytes]]]:
    """Yield files with their contents; one that cannot be opened is left out, and one that is gone is not there."""
    for seen in files:
        try:
            chunks = tree.chunks(seen.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if refusal_in(error) is not None:
                raise
            left_out.append(f"{escaped(seen.path)}: it cannot be read: {os.strerror(error.errno or 0)}")
        else:
            yield seen, chunks
