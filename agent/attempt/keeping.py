"""Keeping of workspaces: an attempt begins in the one that another job has saved, and saves its own for later ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from airunner.agent.artifacts.step import count_text
from airunner.agent.artifacts.uploading import Uplink
from airunner.agent.attempt.surroundings import Surroundings
from airunner.agent.checkout.git import CheckoutFailed
from airunner.agent.launcher.refusal import refusal_in
from airunner.agent.output.recorder import Recorder
from airunner.agent.saves.restoring import NotRestored, restore
from airunner.agent.saves.step import KeepStep
from airunner.agent.workspace.workspace import Workspace
from airunner.protocol.job import Result
from airunner.protocol.replies import JobLease
from airunner.protocol.savemanifest import size_of
from airunner.protocol.sizes import bytes_text


class Keeping:
    """Keeping of the workspace of one attempt; `say` writes a line into its log."""

    def __init__(
        self,
        lease: JobLease,
        workspace: Workspace,
        recorder: Recorder,
        uplink: Uplink,
        around: Surroundings,
        say: Callable[[str], None],
    ) -> None:
        self._continues = lease.spec.continues
        self._workspace = workspace
        self._uplink = uplink
        self._say = say
        self._step: KeepStep | None = None
        if lease.spec.keep:
            self._step = KeepStep(lease, workspace, recorder, uplink, around.wall_ms, say, around.artifact_bytes_max)

    async def restore(self) -> None:
        """Restore the workspace in which the job is to begin, if there is one. Raises `CheckoutFailed`, `OSError`."""
        if self._continues is None:
            return
        began_s = anyio.current_time()
        try:
            manifest = await restore(self._continues.slices, self._workspace, self._uplink, self._say)
        except NotRestored as failed:
            raise CheckoutFailed(f"the workspace of job {self._continues.job_id} is not restored: {failed}") from failed
        except OSError as error:
            if refusal_in(error) is not None:
                raise
            message = f"the workspace of job {self._continues.job_id} is not restored: {error.strerror}"
            raise CheckoutFailed(message) from error
        if self._step is not None:
            await self._step.learn(manifest)
        files = count_text(sum(entry.kind != "folder" for entry in manifest.entries))
        took_s = anyio.current_time() - began_s
        self._say(f"workspace restored: {files}, {bytes_text(size_of(manifest.entries))} in {took_s:.1f} s")

    async def saving_during(self, attending: Awaitable[Result]) -> Result:
        """Save every now and then until the command has ended, if the job says so; return its result.

        Raises `LeaseEnded`, alone or in a group.
        """
        if self._step is None:
            return await attending
        async with self._step.running():
            return await attending

    async def save(self) -> None:
        """Save the workspace at the end, if the job says so. Raises `LeaseEnded`, alone or in a group."""
        if self._step is not None:
            await self._step.save()
