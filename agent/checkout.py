"""Puts one commit of a repository into an attempt's workspace.

- A fixed argv: what a submitter wrote stands behind `--` or `--branch=`, after `repository.refusal` let it pass.
- Whole history and all tags, as `git clone` gives them, so that the job's own git finds what it expects; or the
  last `depth` commits. A commit that no branch or tag reaches is then asked for by its name.
- What the agent has of the repository already is borrowed from its mirror (see `mirrors`). Where that goes wrong for
  another reason than the network, it is tried once more without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import anyio
from msgspec import Struct

from airunner.agent.git import CheckoutFailed, Git, git_environment
from airunner.agent.launcher.contract import Starter
from airunner.agent.mirrors import Mirror
from airunner.agent.repository import Rules, Source, refusal
from airunner.agent.submodules import Submodules
from airunner.agent.workspace import Workspace, remove_workspace

CHECKOUT_S_MAX: Final = 3_600.0
_FULL_NAME_CHARS: Final = (40, 64)  # SHA-1, SHA-256


class CheckedOut(Struct, frozen=True):
    """`commit`, by its full name, stands in the checkout."""

    commit: str


class Terms(Struct, frozen=True):
    """How an agent checks out: from where, with what chance between tries, and who hears of progress."""

    rules: Rules
    random: Callable[[], float]
    tell: Callable[[str], None]


async def check_out(
    launcher: Starter,
    source: Source,
    terms: Terms,
    *,
    workspace: Workspace,
    agent_environ: Mapping[str, str],
    mirror: Mirror | None = None,
) -> CheckedOut:
    """Clone `source` into the empty folder `workspace.checkout`. Cancelled, it leaves no git.

    Raises `CheckoutFailed`, `LauncherDied`, `LeaseEnded`.
    """
    if reason := refusal(source, terms.rules):
        raise CheckoutFailed(reason)
    environment = git_environment(agent_environ, workspace, terms.rules)
    git = Git(launcher, environment, workspace.checkout, source.repository, terms.tell, terms.random)
    with anyio.move_on_after(CHECKOUT_S_MAX):
        commit = await _with_mirror(git, source, workspace, mirror)
        if source.submodules:
            await Submodules(git, terms.rules, source).check_out(workspace.checkout)
        return CheckedOut(commit)
    raise CheckoutFailed(f"the checkout was not done after {CHECKOUT_S_MAX:.0f} s")


async def _with_mirror(git: Git, source: Source, workspace: Workspace, mirror: Mirror | None) -> str:
    """The commit that is checked out, with what the mirror has where that is of use."""
    if mirror is None or source.depth is not None:  # a few commits are brought sooner than all of them are kept
        return await _Checkout(git, source).run()
    if known := mirror.there:
        git.tell("borrowing from the mirror")
    await mirror.make(git)
    mirror.settle()
    if not mirror.there:
        git.tell("the mirror is of no use; it will be made anew")
        return await _Checkout(git, source).run()
    try:
        commit = await _Checkout(git, source, ("--reference", str(mirror.folder))).run()
    except CheckoutFailed as failed:
        if not known or failed.of_network:
            raise
        git.tell("trying again without the mirror")
        _empty(workspace)
        commit = await _Checkout(git, source).run()  # where this fails too the mirror is not what is wrong
        mirror.faulty = True
        return commit
    await mirror.take_over(git, workspace.checkout)
    return commit


def _empty(workspace: Workspace) -> None:
    remove_workspace(workspace.checkout)
    workspace.checkout.mkdir(mode=0o700, exist_ok=True)


class _Checkout:
    """The git processes of one checkout, one after another."""

    def __init__(self, git: Git, source: Source, options: tuple[str, ...] = ()) -> None:
        self._git = git
        self._source = source
        self._options = options
        self._depth = [f"--depth={source.depth}"] if source.depth else []

    async def run(self) -> str:
        """The full name of the commit that stands in the checkout."""
        git, source = self._git, self._source
        which = "--no-checkout" if source.commit else f"--branch={source.branch}" if source.branch else None
        options = ("--progress", "--no-local", "--template=", *self._options, *self._depth, *([which] if which else []))
        await git.need("clone", *options, "--", git.address, ".")
        if not source.commit:
            return await git.resolve("HEAD") or git.fail("the repository has no commit to check out")
        commit = await git.resolve(source.commit) or await self._fetch(source.commit)
        if not commit.startswith(source.commit.lower()):
            git.fail(f"{source.commit} names a branch or a tag, not a commit")
        await git.need("checkout", "--progress", "--detach", commit, "--")
        return commit

    async def _fetch(self, commit: str) -> str:
        """Ask for a commit that no branch or tag reaches; servers want its full name."""
        if len(commit) not in _FULL_NAME_CHARS:
            self._git.fail(f"no branch or tag reaches a commit {commit}; one that none reaches needs its full name")
        await self._git.need("fetch", "--progress", "--no-tags", *self._depth, "--", "origin", commit)
        return await self._git.resolve(commit) or self._git.fail(f"{commit} is not a commit")
