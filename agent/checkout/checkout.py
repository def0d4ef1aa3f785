"""Checkout: puts one commit of a repository into an attempt's workspace.

- A submitter cannot add options to git: `repository.refusal` checks each value of the job that git gets.
- The clone has the whole history and all tags, as the job's own git expects; with `depth`, only the last commits. A
  commit that is not in the clone is fetched by its hash or ref.
- `revision` defines what a job's `commit` and `branch` mean.
- Without `depth`, objects are borrowed from the agent's mirror (see `mirrors`). If a checkout fails with a mirror that
  existed before, and neither network nor machine is the cause, the checkout is repeated without the mirror.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, assert_never

import anyio
from msgspec import Struct

from airunner.agent.checkout.credentials import access_to
from airunner.agent.checkout.git import CheckoutFailed, Git, git_environment
from airunner.agent.checkout.mirrors import Mirror
from airunner.agent.checkout.repository import Rules, refusal
from airunner.agent.checkout.revision import Kind, Source, wanted_of
from airunner.agent.checkout.submodules import Submodules
from airunner.agent.launcher.contract import Starter
from airunner.agent.workspace.workspace import Workspace, remove_workspace

CHECKOUT_S_MAX: Final = 3_600.0  # seconds for a whole checkout, all git commands together


class Terms(Struct, frozen=True):
    """Terms of an agent's checkouts: the allowed sources, randomness for pauses; `tell` gets lines of progress."""

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
) -> str:
    """Clone `source` into the empty folder `workspace.checkout`, and return the commit's hash.

    When it is cancelled, no git process is left. Raises `CheckoutFailed`, and as `Starter.launch`.
    """
    if reason := refusal(source, terms.rules):
        raise CheckoutFailed(reason)
    access = access_to(source.repository)
    git = Git(
        launcher=launcher,
        environment={**git_environment(agent_environ, workspace, terms.rules), **access.environment},
        folder=workspace.checkout,
        repository=source.repository,
        address=access.address,
        tell=terms.tell,
        random=terms.random,
        fsck=terms.rules.fsck,
    )
    with anyio.move_on_after(CHECKOUT_S_MAX):
        commit = await _with_mirror(git, source, workspace, mirror)
        if source.submodules:
            await Submodules(git, terms.rules, source).check_out(workspace.checkout)
        return commit
    raise CheckoutFailed(f"the checkout took longer than {CHECKOUT_S_MAX:.0f} s and was ended")


async def _with_mirror(git: Git, source: Source, workspace: Workspace, mirror: Mirror | None) -> str:
    """Check out, with objects borrowed from the mirror if possible, and return the commit's hash."""
    if mirror is None or source.depth is not None:  # a few commits transfer faster than a whole mirror
        return await _Checkout(git, source).run()
    if known := mirror.usable:
        git.tell("borrowing from the mirror")
    await mirror.make(git)
    if mirror.usable:
        mirror.restore_config()
    if mirror.faulty:
        git.tell("the mirror is damaged: checking out without it; a later job makes it again")
    if not mirror.usable:
        return await _Checkout(git, source).run()
    try:
        commit = await _Checkout(git, source, ("--reference", str(mirror.folder))).run()
    except CheckoutFailed as failed:
        if not known or failed.of_network or failed.scarce:
            raise
        git.tell("trying again without the mirror")
        remove_workspace(workspace.checkout)
        workspace.checkout.mkdir(mode=0o700, exist_ok=True)
        commit = await _Checkout(git, source).run()  # if this fails too, the mirror is not at fault
        mirror.faulty = True
        return commit
    await mirror.add_objects(git, workspace.checkout)
    return commit


class _Checkout:
    """Git commands of one checkout, run one after another; `options` are for `git clone`."""

    def __init__(self, git: Git, source: Source, options: tuple[str, ...] = ()) -> None:
        self._git = git
        self._source = source
        self._options = options
        self._depth = [f"--depth={source.depth}"] if source.depth else []

    async def run(self) -> str:
        """Check out, and return the full hash of the commit."""
        git, wanted = self._git, wanted_of(self._source)
        by_name = wanted.kind is Kind.NAME
        which = f"--branch={wanted.text}" if by_name else "--no-checkout" if wanted.text else None
        options = ("--progress", "--no-local", "--template=", *self._options, *self._depth, *([which] if which else []))
        await git.must_run("clone", *options, "--", git.address, ".")
        match wanted.kind:
            case Kind.HEAD | Kind.NAME:
                return await git.resolve("HEAD") or git.fail("the repository has no commit to check out")
            case Kind.HASH:
                commit = await git.resolve(wanted.text) or await self._fetch(wanted.text)
                if not commit.startswith(wanted.text.lower()):
                    git.fail(f"{wanted.text} is not a commit")
            case Kind.HASH_OR_NAME:
                commit = await self._hash_or_name(wanted.text)
            case Kind.REF:
                commit = await self._fetch(wanted.text)
            case _:
                assert_never(wanted.kind)
        await git.must_run("checkout", "--progress", "--detach", commit, "--")
        return commit

    async def _hash_or_name(self, text: str) -> str:
        """Return the only commit that `text` can mean as branch, tag or start of a hash; fail if there is not one."""
        git = self._git
        named = await self._named(text)
        if named is None:
            return await git.resolve(text) or git.fail(
                f"there is no branch or tag {text}, and none contains a commit whose hash starts with it, or there are "
                "several such commits: give the full hash"
            )
        if await self._commits(text) - {named}:
            git.fail(f"{text} is a branch or tag, and also the start of another commit's hash: give the full hash")
        return named

    async def _named(self, text: str) -> str | None:
        """Return the commit of the branch or tag `text`, None if there is none; a shallow clone fetches it first."""
        for local, remote in (
            (f"refs/remotes/origin/{text}", f"refs/heads/{text}"),
            (f"refs/tags/{text}", f"refs/tags/{text}"),
        ):
            if commit := await self._git.resolve(local):
                return commit
            if self._depth and (await self._git.must_run("ls-remote", "--", "origin", remote)).stdout:
                return await self._fetch(remote)
        return None

    async def _commits(self, start: str) -> set[str]:
        """Return the commits in the clone whose hash starts with `start`."""
        listed = await self._git.run("rev-parse", f"--disambiguate={start.lower()}")
        return {name for name in listed.stdout.decode().split() if await self._git.resolve(name) == name}

    async def _fetch(self, name: str) -> str:
        """Fetch a commit that the clone lacks, by its full hash or a ref such as `refs/pull/7/head`."""
        await self._git.must_run("fetch", "--progress", "--no-tags", *self._depth, "--", "origin", name)
        return await self._git.resolve("FETCH_HEAD") or self._git.fail(f"{name} is not a commit")
