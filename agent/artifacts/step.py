"""Artifact step of an attempt: finds the files that the job leaves, has them stored, and records an event for each.

An event is recorded once its file is stored: so a file can be fetched while the job still runs, and a job that is
COMPLETED has all of them. Two windows at most are read and sent at a time; events come in the order of the windows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
from msgspec import Struct

from airunner.agent.artifacts.collecting import (
    NAMED_MAX,
    Collection,
    Found,
    TooManyArtifacts,
    collect,
    reading,
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

ARTIFACT_BYTES_MAX: Final = 10 << 30  # default bound of one attempt
_UNITS: Final = (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000))


class Failed(Exception):
    """Failure to keep artifacts; the message says why, for the log."""


class ArtifactStep(Struct):
    """Artifact step of the attempt with the lease `lease`; `say` writes a line into its log."""

    lease: JobLease
    workspace: Workspace
    recorder: Recorder
    uplink: Uplink
    wall_ms: Callable[[], int]
    say: Callable[[str], None]
    bytes_max: int = ARTIFACT_BYTES_MAX
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
                collection = await self.uplink.offload(lambda: collect(tree, patterns, self.bytes_max, owner))
                await self._upload(tree, collection)
            except TooManyArtifacts as error:
                raise Failed(str(error)) from error
            except OSError as error:
                raise Failed(f"they cannot be read: {error.strerror}") from error
        if collection.left_out:
            self.say(named_text("artifacts are left out:", collection.left_out))
        if self.stored:
            took_s = anyio.current_time() - began_s
            self.say(f"artifacts: {count_text(self.stored)}, {size_in_words(self.stored_bytes)} in {took_s:.1f} s")
        return collection.unmatched

    async def _upload(self, tree: Tree, collection: Collection) -> None:
        """Upload what was found. Raises `TooManyArtifacts`, `OSError`, `Failed`, `NoBlobs`."""
        files = pack(reading(tree, collection, self.bytes_max))
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


def size_in_words(size_bytes: int) -> str:
    """Return a size for a line of the log."""
    unit, divisor = next(((unit, divisor) for unit, divisor in _UNITS if size_bytes >= divisor), ("bytes", 1))
    return f"{size_bytes} bytes" if divisor == 1 else f"{size_bytes / divisor:.1f} {unit}"


def named_text(heading: str, lines: list[str]) -> str:
    """List the first lines below a heading, and how many more there are."""
    more = [f"  and {len(lines) - NAMED_MAX} more"] if len(lines) > NAMED_MAX else []
    return "\n".join([heading, *(f"  {line}" for line in lines[:NAMED_MAX]), *more])
