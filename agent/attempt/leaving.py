"""Leaving: stores what a job leaves when its command has ended: its artifacts, and what it changed in its checkout."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from airunner.agent.artifacts.step import ArtifactStep, Put
from airunner.agent.artifacts.uploading import Uplink
from airunner.agent.attempt.keeping import Keeping
from airunner.agent.attempt.surroundings import Surroundings
from airunner.agent.checkout.git import Git, git_environment
from airunner.agent.flag import Flag, cancelled_by
from airunner.agent.launcher.contract import Starter
from airunner.agent.output.recorder import Recorder
from airunner.agent.returning.step import ReturnStep
from airunner.agent.workspace.workspace import Workspace
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.replies import JobLease


class Leaving(Struct):
    """Leaving of an attempt; `launcher` starts processes as the job's user, with the variables of `environ`."""

    lease: JobLease
    workspace: Workspace
    recorder: Recorder
    uplink: Uplink
    around: Surroundings
    say: Callable[[str], None]
    launcher: Starter
    environ: Mapping[str, str]
    keeping: Keeping | None
    put: Put

    async def run(self, result: Result, commit: str, cancelled: Flag) -> Result:
        """Store what the job leaves, unless it is cancelled, and return its result. `commit` was checked out.

        Raises `LeaseEnded`, alone or in a group.
        """
        if not leaves_anything(self.lease.spec) or result.state is JobState.CANCELLED:
            return result
        with cancelled_by(cancelled):
            if self.lease.spec.returns:
                await self._return_changes(commit)
            left = not self.lease.spec.artifacts or await self.artifacts.run()
            if self.keeping is not None:
                await self.keeping.save()
            reason = None if left or result.state is not JobState.COMPLETED else Reason.ARTIFACT_MISSING
            return replace(result, reason=reason or result.reason)
        return replace(result, reason=Reason.CANCELLED)

    @property
    def artifacts(self) -> ArtifactStep:
        """The step that stores artifacts."""
        return ArtifactStep(
            self.lease,
            self.workspace,
            self.recorder,
            self.uplink,
            self.around.wall_ms,
            self.say,
            self.around.artifact_bytes_max,
            self.put,
        )

    async def _return_changes(self, commit: str) -> None:
        if not commit:
            self.say("nothing is returned: the job has no repository")
            return
        repository = self.lease.spec.repository
        git = Git(
            launcher=self.launcher,
            environment=git_environment(self.environ, self.workspace, self.around.rules),
            folder=self.workspace.checkout,
            repository=repository,
            address=repository,
            tell=lambda _: None,
            warn=self.say,
            random=self.around.random,
        )
        step = ReturnStep(
            self.lease,
            self.workspace,
            self.recorder,
            self.uplink,
            self.around.wall_ms,
            self.say,
            git,
            self.around.artifact_bytes_max,
        )
        await step.run(commit)


def leaves_anything(spec: JobSpec) -> bool:
    """Return whether a job is to leave anything."""
    return bool(spec.artifacts or spec.returns or spec.keep or spec.caches)
