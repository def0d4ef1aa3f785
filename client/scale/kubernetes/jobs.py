"""Jobs of a scaler on Kubernetes: the cluster that it starts agents on.

The list of Jobs is kept while a watch on it is open and silent, so that an idle scaler sends no requests. A Job that
has ended stays, for its log, until its name is needed, or its `ttlSecondsAfterFinished` has passed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final

import anyio

from airunner.client.scale.cluster import ClusterAway, Unit, UnitState
from airunner.client.scale.demand import is_unit_of, unit_name
from airunner.client.scale.kubernetes.api import JobsApi, KubernetesJob
from airunner.client.scale.kubernetes.template import Template

RETRY_S: Final = 5.0  # between two watches; meanwhile each look lists the Jobs
NOTE_CHARS_MAX: Final = 200  # of the reason why a Job failed


class KubernetesJobs:
    """Jobs that `scaler` makes from a template."""

    def __init__(self, api: JobsApi, template: Template, scaler: str) -> None:
        self._api = api
        self._template = template
        self._scaler = scaler
        self._watched = False  # a watch is open
        self._changes = 0  # number of changes that were noticed
        self._units: Sequence[Unit] | None = None  # as they were listed; None: they may have changed

    async def check(self) -> None:
        """Check that the API server would create a Job of the template, and lists the Jobs."""
        await self._api.create(self._manifest(unit_name(self._scaler, 0)), dry_run=True)
        await self._api.list_jobs()

    async def units(self) -> Sequence[Unit]:
        """List the units."""
        if self._units is not None:
            return self._units
        changes = self._changes
        jobs = await self._api.list_jobs()
        units = [_unit(job) for job in jobs if is_unit_of(self._scaler, job.metadata.name)]
        if self._watched and changes == self._changes:
            self._units = units
        return units

    async def start(self, name: str, ended: Unit | None) -> bool:
        """Create a Job, after deleting the one that had its name."""
        self._note_change()
        if ended is not None:
            await self._api.delete(name, ended.key)
        return await self._api.create(self._manifest(name))

    async def watch(self, changed: Callable[[], object]) -> None:
        """Watch the Jobs, one watch after another."""
        while True:
            with suppress(ClusterAway):
                async with aclosing(self._api.changes()) as changes:
                    async for _ in changes:
                        self._watched = True
                        self._note_change()
                        changed()
            self._watched = False
            self._note_change()
            await anyio.sleep(RETRY_S)

    def _note_change(self) -> None:
        self._changes += 1
        self._units = None

    def _manifest(self, name: str) -> dict[str, Any]:
        return self._template.manifest_of(self._scaler, name)


def _unit(job: KubernetesJob) -> Unit:
    state, note = UnitState.LIVE, ""
    if failed := job.condition("Failed"):
        state, note = UnitState.FAILED, f"{failed.reason}: {failed.message}"[:NOTE_CHARS_MAX]
    elif job.condition("Complete"):
        state = UnitState.DONE
    if job.metadata.deletion_timestamp is not None:
        state = UnitState.ENDING
    return Unit(job.metadata.name, job.metadata.uid, state, note)
