"""Job operands resolved to job ids: a whole id, the first characters of one, a job's name, `@last` or `@last~2`.

A name comes before the beginning of an id; of several jobs with a name, the newest is meant. `@last` is the newest job
of `airunner list`, and `@last~2` the second before it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from airunner.protocol.errors import EXIT_NO_SUCH, OperatorError
from airunner.protocol.printable import one_line
from airunner.protocol.requests import PAGE_MAX, PREFIX_CHARS_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airunner.client.cli.console import Console
    from airunner.client.client import Client
    from airunner.protocol.errors import NotFound
    from airunner.protocol.job import JobSummary

CANDIDATES_MAX: Final = 5  # jobs that are named if an id's beginning is that of several
_WHOLE: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_BEGINNING: Final = re.compile(r"[0-9a-f-]+", re.ASCII)
_LAST: Final = re.compile(r"@last(?:~([0-9]{1,5}))?", re.ASCII)


class NoJob(OperatorError):
    """No job error: no job has this id or name."""

    def __init__(self, operand: str, problem: str = "") -> None:
        message = f"there is no job {one_line(operand)}{problem}; `airunner list` lists the jobs"
        super().__init__(message, exit_code=EXIT_NO_SUCH)


class SeveralJobs(OperatorError):
    """Several jobs error: their ids have the given beginning in common."""


def say_no_job(console: Console, operand: str, error: NoJob | NotFound) -> int:
    """Print that there is no such job; return the exit code of the command."""
    console.must_say((error if isinstance(error, NoJob) else NoJob(operand)).message)
    return EXIT_NO_SUCH


async def job_id_of(client: Client, operand: str) -> str:
    """Find the id of the job that an operand means. Raises `NoJob`, `SeveralJobs`, `OperatorError`."""
    word = operand.strip()  # a copied id may have blanks around it, or capital letters
    beginning = word.lower()
    if _WHOLE.fullmatch(beginning):
        return beginning
    if found := _LAST.fullmatch(beginning):
        return await _newest(client, operand, int(found[1] or 0))
    if not word:
        raise OperatorError("the job's id is empty; `airunner list` lists the jobs")
    named = (await client.list_page(name=word, page_size=1)).jobs
    if named:
        return named[0].id
    if not _BEGINNING.fullmatch(beginning):
        raise NoJob(operand)
    if len(beginning) < PREFIX_CHARS_MIN:
        raise NoJob(operand, f", and the beginning of an id has at least {PREFIX_CHARS_MIN} characters")
    jobs = (await client.list_page(prefix=beginning, page_size=CANDIDATES_MAX + 1)).jobs
    if len(jobs) == 1:
        return jobs[0].id
    if jobs:
        raise SeveralJobs(f"{_candidates(operand, jobs)}\nGive more characters of the id.")
    raise NoJob(operand)


async def _newest(client: Client, operand: str, before: int) -> str:
    """Find the id of the newest job, or of the one `before` jobs before it."""
    if before >= PAGE_MAX:
        raise OperatorError(f"{operand}: at most @last~{PAGE_MAX - 1} can be asked for")
    jobs = (await client.list_page(page=before + 1, page_size=1)).jobs
    if not jobs:
        raise NoJob(operand, ": there are not as many" if before else ": there are no jobs yet")
    return jobs[0].id


def _candidates(operand: str, jobs: Sequence[JobSummary]) -> str:
    """List the jobs that an operand may mean."""
    lines = [f"  {job.id}  {job.state}  {job.name or job.command}" for job in jobs[:CANDIDATES_MAX]]
    more = "\n  and more" if len(jobs) > CANDIDATES_MAX else ""
    return f"{operand} is the beginning of several ids:\n" + "\n".join(lines) + more
