"""Keep step of an attempt: saves the workspace at the end, and while the command runs if the job says so.

Trouble with a save fails no job: the log says why, and the save before it stands.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio

from airunner.agent.artifacts.flow import leaves
from airunner.agent.artifacts.step import count_text, named_text
from airunner.agent.artifacts.uploading import Uplink
from airunner.agent.launcher.contract import LeaseEnded
from airunner.agent.output.recorder import Recorder
from airunner.agent.saves.looking import TooMuch
from airunner.agent.saves.storing import Save, Storing
from airunner.agent.workspace.workspace import Workspace
from airunner.protocol.errors import PeerError
from airunner.protocol.events import Kept
from airunner.protocol.replies import JobLease
from airunner.protocol.savemanifest import Manifest, places_of
from airunner.protocol.sizes import bytes_text

NOT_SAVED: Final = "the workspace is not saved"


class KeepStep:
    """Keep step of the attempt with the lease `lease`; `say` writes a line into its log."""

    def __init__(
        self,
        lease: JobLease,
        workspace: Workspace,
        recorder: Recorder,
        uplink: Uplink,
        wall_ms: Callable[[], int],
        say: Callable[[str], None],
        bytes_max: int,
    ) -> None:
        self._every_s = lease.spec.keep_every_seconds
        self._recorder = recorder
        self._wall_ms = wall_ms
        self._say = say
        owner = None if workspace.user is None else workspace.user.uid
        places = places_of(lease.spec.keep)
        self._storing = Storing(uplink, lease.ref, say, workspace.root, places, bytes_max, owner)

    async def learn(self, manifest: Manifest) -> None:
        """Learn what a workspace has that was just restored."""
        await self._storing.learn(manifest)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Save every now and then while the block runs. Raises `LeaseEnded` in a group."""
        async with anyio.create_task_group() as group:
            if self._every_s is not None:
                group.start_soon(self._run, self._every_s)
            yield
            group.cancel_scope.cancel()

    async def _run(self, every_s: float) -> None:
        while True:
            await anyio.sleep(every_s)
            await self._save()

    async def save(self) -> None:
        """Save the workspace at the end. Raises `LeaseEnded`, alone or in a group."""
        began_s = anyio.current_time()
        save = await self._save()
        if save is None:
            return
        if self._storing.left_out:
            self._say(named_text("the saved workspace lacks:", self._storing.left_out))
        took_s = anyio.current_time() - began_s
        self._say(f"workspace saved: {count_text(save.files)}, {bytes_text(save.size_bytes)} in {took_s:.1f} s")

    async def _save(self) -> Save | None:
        """Save the workspace, and record it; None: it cannot be saved, which is said."""
        failures: list[Exception] = []
        try:
            save = await self._storing.store()
        except* LeaseEnded:
            raise
        except* (TooMuch, OSError, PeerError) as errors:
            failures += leaves(errors)
        else:
            kept = Kept(timestamp_ms=self._wall_ms(), files=save.files, size_bytes=save.size_bytes, slices=save.slices)
            await self._recorder.add_when_room(kept)
            return save
        self._say(f"{NOT_SAVED}: {_why(failures[0])}")
        return None


def _why(failure: Exception) -> str:
    if isinstance(failure, PeerError):
        return failure.message
    if isinstance(failure, OSError):
        return f"it cannot be read: {failure.strerror}"
    return str(failure)
