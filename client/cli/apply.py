"""Command `airunner apply`: brings the changes that a job has returned into the repository of this folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airunner.client.cli.clientcommand import JobArgument, Work, client_command
from airunner.client.cli.console import Console
from airunner.protocol.errors import EXIT_NO_SUCH, EXIT_WRONG_STATE, OperatorError
from airunner.protocol.printable import one_line

if TYPE_CHECKING:
    from airunner.client.applying import Applied
    from airunner.client.client import Client
    from airunner.protocol.events import Returned
    from airunner.protocol.job import Job


@client_command("quiet")
def apply_command(
    console: Console,
    job: JobArgument,
    branch: Annotated[
        str | None,
        typer.Option(
            "--branch", "-b", metavar="NAME", help="Make a branch with the changes as a commit.", show_default=False
        ),
    ] = None,
    patch: Annotated[
        bool, typer.Option("--patch", help="Print the changes as a patch, for `git am` or `git apply`.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Say whether the changes can be applied, and apply nothing.")
    ] = False,
) -> Work:
    """Apply the changes that a job made in its checkout, which it was submitted with --return for, to this repository.

    The files are changed as if the job's command had been run here: nothing is staged or committed. If a file is
    another one here, git merges it; conflicts are left as by `git merge`. Files with uncommitted changes that the job
    did not have are refused, and nothing is changed. Exits with 65 on a conflict or a refusal, with 66 if the job has
    returned nothing.
    """
    if (branch is not None) + patch + check > 1:
        raise OperatorError("--branch, --patch and --check are three ways to use the changes: choose one")

    async def run(client: Client) -> int:
        from airunner.client.cli.jobname import job_id_of

        found = await client.get(await job_id_of(client, job))
        returned = await returned_by(client, found)
        if returned is None:
            console.must_say(_none_text(found))
            return EXIT_NO_SUCH
        if not returned.files:
            console.must_say("the job has changed nothing in its checkout")
            return 0
        with tempfile.TemporaryDirectory(prefix="airunner-apply-") as folder:
            bundles = await _bundles(client, found, returned, Path(folder))
            return _use(console, found, returned, bundles, branch=branch, patch=patch, check=check)

    return run


async def returned_by(client: Client, job: Job) -> Returned | None:
    """Find what a job has returned, the last of its attempts that did; None: nothing, or nothing yet."""
    from airunner.protocol.events import Returned

    if not job.spec.returns or not job.attempt:
        return None
    found = [event.body async for event in client.replay(job.id, kinds=("RETURNED",))]
    return next((body for body in reversed(found) if isinstance(body, Returned)), None)


async def returned_text(client: Client, job: Job) -> str:
    """Say what a job has returned, and how to get it; empty if nothing."""
    returned = await returned_by(client, job)
    if returned is None:
        return ""
    return f"{changes_text(returned.files)}: airunner apply {job.id}" if returned.files else "nothing"


def changes_text(files: int) -> str:
    """Format in how many files something was changed."""
    return "changes in 1 file" if files == 1 else f"changes in {files:,} files"


def _none_text(job: Job) -> str:
    if not job.spec.returns:
        return "the job was submitted without --return, and has returned nothing"
    if not job.state.terminal:
        return f"the job is {job.state}, and has returned nothing yet"
    return f"the job has returned nothing; `airunner logs {job.id} --kind PROCESS_ERROR` may say why"


async def _bundles(client: Client, job: Job, returned: Returned, folder: Path) -> list[Path]:
    """Fetch the bundles of a job: of its tree, if it was submitted with one, and of its changes."""
    from airunner.client.artifactfiles import ArtifactFile

    tree = job.spec.tree
    files = [] if tree is None else [ArtifactFile(path="tree", size_bytes=tree.size_bytes, index=tree.index)]
    files.append(
        ArtifactFile(path="changes", size_bytes=returned.size_bytes, slices=returned.slices, index=returned.index)
    )
    await client.fetch(job.id, files, folder)
    return [folder / file.path for file in files]


def _use(
    console: Console,
    job: Job,
    returned: Returned,
    bundles: list[Path],
    *,
    branch: str | None,
    patch: bool,
    check: bool,
) -> int:
    from airunner.client.applying import changes_here, make_branch
    from airunner.protocol.gitaddress import shown_address

    repository = one_line(shown_address(job.spec.repository))
    here = Path.cwd()
    if branch is not None:
        make_branch(here, os.environ, branch, returned.commit, bundles, repository)
        console.say(f"branch {branch} has the job's {changes_text(returned.files)} as its last commit")
        return 0
    with changes_here(here, os.environ, returned.commit, bundles, repository) as changes:
        if patch:
            with tempfile.TemporaryFile() as file:
                changes.write_patch(file)
                file.seek(0)
                while piece := file.read(1 << 20):
                    console.out(piece)
            return 0
        return _say(console, changes.apply(check=check), check=check)


def _say(console: Console, applied: Applied, *, check: bool) -> int:
    for path in applied.submodules:
        console.must_say(f"the job has another commit of the submodule {one_line(path)}: check it out there")
    if applied.conflicts:
        for line in applied.conflicts.splitlines():
            console.must_say(one_line(line))
        return EXIT_WRONG_STATE
    if not applied.files:
        console.say("the job's changes are here already")
    else:
        console.say(f"{changes_text(applied.files)} {'can be applied' if check else 'applied'}")
    return 0
