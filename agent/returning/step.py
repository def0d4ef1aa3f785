"""Return step of an attempt: stores what the job has changed in its checkout, and records that as an event."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.agent.artifacts.flow import leaves
from airunner.agent.artifacts.packing import Packed, Window, next_window, pack
from airunner.agent.artifacts.step import named_text
from airunner.agent.artifacts.tree import Tree
from airunner.agent.artifacts.uploading import WINDOW_BYTES, Uplink, Upload
from airunner.agent.checkout.git import CheckoutFailed, Git
from airunner.agent.output.recorder import Recorder
from airunner.agent.returning.changes import BUNDLE, Changes, copy_index, pack_changes
from airunner.agent.workspace.workspace import Workspace, give
from airunner.protocol.errors import PeerError
from airunner.protocol.events import Returned
from airunner.protocol.printable import escaped
from airunner.protocol.replies import JobLease

_FOLDER_MODE: Final = 0o700
_MIB: Final = 1 << 20


class _TooLarge(Exception):
    """Changes that are more than an agent keeps; the message says how much."""


class ReturnStep(Struct):
    """Return step of the attempt with the lease `lease`; `say` writes a line into its log.

    `git` works in the checkout as the job's user. A bundle of more than `bytes_max` bytes is not returned.
    """

    lease: JobLease
    workspace: Workspace
    recorder: Recorder
    uplink: Uplink
    wall_ms: Callable[[], int]
    say: Callable[[str], None]
    git: Git
    bytes_max: int

    async def run(self, base: str) -> None:
        """Return what was changed since the commit `base`; a failure is said. Raises `LeaseEnded`, alone or in a group.

        Its folder is in the agent's part of the workspace, and the job cannot have known its name.
        """
        scratch = self.workspace.root / f"return-{secrets.token_hex(8)}"
        try:
            await self.uplink.offload(lambda: self._make(scratch))
            message = f"Changes of job {self.lease.job_id}"
            changes = await pack_changes(self.git, base, scratch, message, self.wall_ms() // 1_000)
            packed = await self._store(scratch) if changes.files else Packed(None)
        except CheckoutFailed as failed:
            self.say(f"nothing is returned: {failed.message}")
        except _TooLarge as failed:
            self.say(f"nothing is returned: {failed}")
        except PeerError as failed:
            self.say(f"nothing is returned: {failed.message}")
        except OSError as failed:
            self.say(f"nothing is returned: {failed.strerror}")
        else:
            await self._record(base, changes, packed)

    def _make(self, scratch: Path) -> None:
        scratch.mkdir(_FOLDER_MODE)
        copy = copy_index(self.workspace.checkout, scratch)
        objects = scratch / "objects"
        objects.mkdir(_FOLDER_MODE)
        if self.workspace.user is not None:
            give(self.workspace.user, *([copy] if copy else []), objects, scratch)

    async def _store(self, scratch: Path) -> Packed[None]:
        """Store the bundle. Raises `_TooLarge`, `PeerError`, `OSError`."""
        upload = Upload(self.uplink, self.lease.ref, self.say)
        with Tree(scratch) as tree:
            parts = pack([(None, self._bounded(tree.chunks(BUNDLE)))])
            async with self.uplink.turns:
                while True:
                    window = await self.uplink.offload(lambda: next_window(parts, WINDOW_BYTES))
                    await self._put(upload, window)
                    if window.files:
                        return window.files[0]

    async def _put(self, upload: Upload, window: Window[None]) -> None:
        failures: list[Exception] = []
        try:
            await upload.store(window.pieces)
        except* PeerError as errors:
            failures += leaves(errors)
        if failures:
            raise failures[0]

    def _bounded(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        left_bytes = self.bytes_max
        for chunk in chunks:
            left_bytes -= len(chunk)
            if left_bytes < 0:
                raise _TooLarge(
                    f"it has more than {self.bytes_max / _MIB:,.0f} MiB, see `airunner agent --artifact-gib`"
                )
            yield chunk

    async def _record(self, base: str, changes: Changes, packed: Packed[None]) -> None:
        if changes.left_out:
            self.say(named_text("not returned:", [escaped(line) for line in changes.left_out]))
        await self.recorder.add_when_room(
            Returned(
                timestamp_ms=self.wall_ms(),
                base=base,
                commit=changes.commit,
                files=changes.files,
                size_bytes=packed.size_bytes,
                slices=packed.slices,
                index=packed.index,
            )
        )
