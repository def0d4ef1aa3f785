"""Artifact step of an attempt: finds the files that the job leaves, has them stored, and records an event for each.

An event is recorded once its file is stored: so a file can be fetched while the job still runs, and a job that is
COMPLETED has all of them. Two windows at most are read and sent at a time; events come in the order of the windows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
from msgspec import Struct, field

from airunner.agent.artifacts.collecting import (
    FILES_MAX,
    NAMED_MAX,
    Collection,
    Found,
    TooManyArtifacts,
    collect,
    reading,
    too_many,
)
from airunner.agent.artifacts.flow import Flow, leaves
from airunner.agent.artifacts.packing import Packed, pack
from airunner.agent.artifacts.tree import Tree
from airunner.agent.artifacts.uploading import Uplink, Upload
from airunner.agent.output.recorder import Recorder
from airunner.agent.workspace.workspace import Workspace
from airunner.protocol.errors import NoBlobs, PeerError
from airunner.protocol.events import Artifact
from airunner.protocol.printable import escaped
from airunner.protocol.replies import JobLease
from airunner.protocol.sizes import bytes_text

ARTIFACT_BYTES_MAX: Final = 10 << 30  # default bound of one attempt


class Failed(Exception):
    """Failure to keep artifacts; the message says why, for the log."""


class Put(Struct):
    """Files, folders and links that the job has put while it ran, and their bytes; they count among its artifacts."""

    files: int = 0
    size_bytes: int = 0


class ArtifactStep(Struct):
    """Artifact step of the attempt with the lease `lease`; `say` writes a line into its log."""

    lease: JobLease
    workspace: Workspace
    recorder: Recorder
    uplink: Uplink
    wall_ms: Callable[[], int]
    say: Callable[[str], None]
    bytes_max: int = ARTIFACT_BYTES_MAX
    put: Put = field(default_factory=Put)
    stored: int = 0  # files, folders and links
    stored_bytes: int = 0

    async def run(self) -> bool:
        """Store the artifacts; return whether the job has left what it was to leave.

        Raises `LeaseEnded`, alone or in a group.
        """
        spec = self.lease.spec
        try:
            unmatched = await self._store()
        except Failed as failed:
            self.say(f"artifacts are missing: {failed}")
            return False
        except NoBlobs as refused:
            self.say(f"artifacts are not kept: {refused.message}")
            return not spec.artifact_required
        for pattern in unmatched:
            self.say(f"artifacts: nothing matches {escaped(pattern)}")
        return not (unmatched and spec.artifact_required)

    async def _store(self) -> list[str]:
        """Store the artifacts, and return the patterns without a match. Raises `Failed`, `NoBlobs`."""
        began_s = anyio.current_time()
        patterns = self.lease.spec.artifacts
        owner = None if self.workspace.user is None else self.workspace.user.uid
        try:
            tree = Tree(self.workspace.checkout)
        except OSError:
            return list(patterns)  # the job has removed it
        with tree:
            try:
                collection = await self.uplink.offload(lambda: collect(tree, patterns, self._left_bytes, owner))
                await self._upload(tree, collection)
            except TooManyArtifacts as error:
                raise Failed(f"{error}{' beside those that the job has put' if self.put.files else ''}") from error
            except OSError as error:
                raise Failed(f"they cannot be read: {error.strerror}") from error
        if collection.left_out:
            self.say(named_text("artifacts are left out:", collection.left_out))
        if self.stored:
            took_s = anyio.current_time() - began_s
            self.say(f"artifacts: {count_text(self.stored)}, {bytes_text(self.stored_bytes)} in {took_s:.1f} s")
        return collection.unmatched

    @property
    def _left_bytes(self) -> int:
        return max(0, self.bytes_max - self.put.size_bytes)

    async def _upload(self, tree: Tree, collection: Collection) -> None:
        """Upload what was found. Raises `TooManyArtifacts`, `OSError`, `Failed`, `NoBlobs`."""
        if len(collection.found) + self.put.files > FILES_MAX:
            raise TooManyArtifacts(too_many())
        files = pack(reading(tree, collection, self._left_bytes))
        flow = Flow(self.uplink, files, Upload(self.uplink, self.lease.ref, self.say), self.record)
        failures: list[Exception] = []
        try:
            await flow.run()
        except* (TooManyArtifacts, OSError, PeerError) as errors:
            failures += leaves(errors)
        if failures:
            failure = failures[0]
            if isinstance(failure, PeerError) and not isinstance(failure, NoBlobs):
                raise Failed(f"the broker refuses them: {failure.message}") from failure
            raise failure

    async def record(self, packed: Packed[Found]) -> None:
        """Count a file that is stored, and record it."""
        self.stored += 1
        self.stored_bytes += packed.size_bytes
        await self.keep(packed)

    async def keep(self, packed: Packed[Found]) -> None:
        """Record that a file is stored."""
        found = packed.key
        await self.recorder.add_when_room(
            Artifact(
                timestamp_ms=self.wall_ms(),
                path=found.path,
                mode=found.mode,
                size_bytes=packed.size_bytes,
                target=found.target,
                slices=packed.slices,
                index=packed.index,
            )
        )


def count_text(files: int) -> str:
    """Format a number of files."""
    return "1 file" if files == 1 else f"{files:,} files"


def named_text(heading: str, lines: list[str]) -> str:
    """List the first lines below a heading, and how many more there are."""
    more = [f"  and {len(lines) - NAMED_MAX} more"] if len(lines) > NAMED_MAX else []
    return "\n".join([heading, *(f"  {line}" for line in lines[:NAMED_MAX]), *more])
