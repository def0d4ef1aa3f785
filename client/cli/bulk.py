"""Bulk commands: choose many jobs by queue, labels, name and state, and change them a few at a time.

```
 --queue, --label, --name, --state ─► all matching jobs, oldest first ─► confirm ─► 16 workers ─► one line for each
```

An interrupt begins no further change, and waits `GRACE_S` for those that the broker has not answered yet: each job that
was changed is printed, and the last line says how many they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from airunner.client.cli.filteroptions import labels_of
from airunner.client.taskgroups import first_error
from airunner.protocol.errors import NotFound, OperatorError, PeerError
from airunner.protocol.job import JobState

if TYPE_CHECKING:
    from airunner.client.cli.console import Console
    from airunner.client.client import Client
    from airunner.client.filters import JobFilters

WORKERS: Final = 16  # changes at once: the broker stores in one transaction those that come together
CONFIRMED_MIN: Final = 11  # jobs from which on a person is asked
GRACE_S: Final = 10.0  # after an interrupt, for the answers to requests that were sent

SomeJobsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="JOB...",
        help="The jobs: of each its id, its first characters (4 or more), its name, or @last; or choose by options.",
        show_default=False,
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help=f"Do not ask before more than {CONFIRMED_MIN - 1} jobs are changed.")
]


class Choice:
    """Choice of jobs by options; `states` are those that are chosen without `--state`, of those that `may` be."""

    def __init__(
        self,
        verb: str,
        queue: str | None,
        labels: Sequence[str] | None,
        name: str | None,
        state: Sequence[JobState] | None,
        *,
        may: Sequence[JobState],
        states: Sequence[JobState],
    ) -> None:
        self.verb = verb
        if wrong := [given for given in state or () if given not in may]:
            raise OperatorError(f"--state {wrong[0]}: `airunner {verb}` is for jobs that are {' or '.join(may)}")
        metadata = labels_of(labels or ())
        self.given = bool(state or metadata) or not (queue is None and name is None)
        self._filters: JobFilters = {
            "queue": queue,
            "name": name,
            "metadata": metadata,
            "state": tuple(state or states),
        }

    def require_one(self, jobs: Sequence[str] | None) -> None:
        """Require that jobs are either named or chosen. Raises `OperatorError`."""
        if not jobs and not self.given:
            ways = "--queue, --label, --name or --state"
            raise OperatorError(f"which jobs? name them, `airunner {self.verb} JOB...`, or choose them with {ways}")
        if jobs and self.given:
            raise OperatorError(f"`airunner {self.verb}` takes either JOBs or options that choose jobs, not both")

    async def ids(self, client: Client) -> Sequence[str]:
        """List the ids of the chosen jobs, oldest first."""
        found = [job.id async for job in client.list(**self._filters)]
        return found[::-1]


async def confirmed(console: Console, verb: str, count: int, *, yes: bool) -> bool:
    """Ask the person at the terminal whether to change many jobs; True without a terminal."""
    from airunner.client.cli.oninterrupt import answered

    if yes or count < CONFIRMED_MIN:
        return True
    console.farewell = "no job was changed"
    agreed = await answered(console, f"{verb} {count:,} jobs? [y/N]") in (None, "y", "yes")
    if not agreed:
        console.must_say(console.farewell)
    return agreed


async def change_each(
    console: Console, verb: str, job_ids: Sequence[str], change: Callable[[str], Awaitable[str]]
) -> int:
    """Change jobs, `WORKERS` at a time; return the exit code: 0, or that of the first refusal.

    `change` returns the line that is printed for a job; empty: none. A job that was removed meanwhile is left out.
    Raises `OperatorError`.
    """
    import anyio

    if not job_ids:
        return 0
    rest, done, exit_code = iter(job_ids), 0, 0
    workers = min(WORKERS, len(job_ids))
    scopes: set[anyio.CancelScope] = set()  # of the requests that were sent

    def progress() -> str:
        return f"{verb}: {done:,} of {len(job_ids):,} jobs are done"

    def note() -> None:
        unsure = f"; {len(scopes)} were not answered yet" if scopes else ""
        console.farewell = f"{progress()}{unsure}; the others are unchanged"

    async def work() -> None:
        nonlocal done, exit_code, workers
        for job_id in rest:
            line = ""
            with anyio.CancelScope(shield=True) as scope:
                scopes.add(scope)
                note()
                try:
                    line = await change(job_id)
                except NotFound:
                    pass
                except PeerError as error:
                    line, exit_code = "", exit_code or error.exit_code
                    console.must_say(f"job {job_id}: {error.message}")
                scopes.remove(scope)
                done += 1
            note()
            if line:
                console.out_line(line)
            console.show_status(progress())
            await anyio.lowlevel.checkpoint()
        workers -= 1
        if not workers:
            group.cancel_scope.cancel()

    async def end_grace() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            for scope in scopes:
                scope.deadline = anyio.current_time() + GRACE_S

    with first_error():
        async with anyio.create_task_group() as group:
            group.start_soon(end_grace)
            for _ in range(workers):
                group.start_soon(work)
    console.farewell = ""
    return exit_code


def summary(done: str, count: int, total: int) -> str:
    """Say how many jobs were changed: `cancelled 12 of 40 jobs`."""
    if not total:
        return "no job matches"
    of = "" if count == total else f" of {total:,}"
    return f"{done} {count:,}{of} {'job' if total == 1 else 'jobs'}"
