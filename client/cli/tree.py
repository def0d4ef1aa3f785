"""Tree of a job: `submit --tree` captures the working tree, uploads what its repository lacks, and submits that."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec.structs import replace

from airunner.client.cli.oninterrupt import answered
from airunner.client.cli.worktree import uncommitted_in
from airunner.client.treecapture import captured
from airunner.client.treesubmission import prepare_tree, submit_tree
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import JobSpec
from airunner.protocol.printable import one_line

if TYPE_CHECKING:
    from airunner.client.cli.console import Console
    from airunner.client.client import Client
    from airunner.client.jobref import SubmittedJob

Submission: TypeAlias = "Callable[..., Awaitable[SubmittedJob]]"
NOTHING: Final = "nothing was submitted"
_OTHERS: Final = ("commit", "ref", "branch", "depth")  # fields that a tree excludes
_ANSWERS: Final[Mapping[str | None, bool | None]] = MappingProxyType(
    {
        **dict.fromkeys(("", "t", "tree"), True),
        **dict.fromkeys(("c", "commit", None), False),  # None: nobody answers
        **dict.fromkeys(("q", "quit"), None),
    }
)


async def submission_with_tree(client: Client, spec: JobSpec, include_ignored: Sequence[str]) -> Submission:
    """Return what submits the job with the state of a working tree as its commit, of which much is uploaded here.

    Raises `OperatorError`, `PeerError`.
    """
    with captured(_folder_of(spec), os.environ, include_ignored=include_ignored) as capture:
        job = replace(spec, repository=capture.repository, commit=capture.commit)
        if capture.bundle is None:
            return partial(client.submit, job)
        return partial(submit_tree, client, job, await prepare_tree(client, capture.bundle))


async def with_tree(client: Client, spec: JobSpec, include_ignored: Sequence[str]) -> JobSpec:
    """Return the job with the state of a working tree as its commit, uploaded. Raises `OperatorError`, `PeerError`."""
    with captured(_folder_of(spec), os.environ, include_ignored=include_ignored) as capture:
        tree = None if capture.bundle is None else await client.upload(capture.bundle)
        return replace(spec, repository=capture.repository, commit=capture.commit, tree=tree)


def question_about(console: Console, spec: JobSpec) -> str:
    """Return what to ask about uncommitted work that a job would not get; empty: there is none, or nothing to ask.

    Raises `OperatorError`: the folder that is given as repository cannot be cloned.
    """
    work = uncommitted_in(spec, os.environ)
    if work is None:
        return ""
    if any(getattr(spec, name) for name in _OTHERS):  # the tree has none of these
        console.must_say(work.hint)
        return ""
    return work.question


async def tree_wanted(console: Console, question: str) -> bool | None:
    """Ask whether a job gets the uncommitted work; None: it is not to be submitted."""
    console.farewell = NOTHING
    answer = await answered(console, question)
    while answer not in _ANSWERS:
        answer = await answered(console, f"{one_line(answer or '')!r} is no answer: {question}")
    console.farewell = ""
    return _ANSWERS[answer]


def _folder_of(spec: JobSpec) -> Path:
    for name in _OTHERS:
        if getattr(spec, name):
            raise OperatorError(f"--tree runs the working tree as it is: leave out --{name}")
    folder = Path(spec.repository or ".").absolute()
    if not folder.is_dir():
        raise OperatorError(f"--tree needs a folder with a working tree, not {spec.repository}")
    return folder
