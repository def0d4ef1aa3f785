"""Checkout: puts one commit of a repository into an attempt's workspace.

- A submitter cannot add options to git: `repository.refusal` checks each value of the job that git gets.
- The clone has the whole history and all tags, as the job's own git expects; with `depth`, only the last commits. A
  commit that is not in the clone is fetched by its hash or ref.
- `revision` defines what a job's `commit`, `ref` and `branch` mean. Before a whole history is transferred, `remote`
  looks whether the remote has them.
- Without `depth`, objects are borrowed from the agent's mirror (see `mirrors`). If a checkout fails with a mirror that
  existed before, and neither network nor machine is the cause, the checkout is repeated without the mirror.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
from msgspec import Struct

from airunner.agent.checkout.credentials import access_to
from airunner.agent.checkout.git import CheckoutFailed, Git, git_environment
from airunner.agent.checkout.largefiles import fetch_large_files
from airunner.agent.checkout.mirrors import Mirror
from airunner.agent.checkout.remote import Remote, ambiguity_message, lacks, object_format
from airunner.agent.checkout.repository import Rules, refusal, rules_of_content
from airunner.agent.checkout.revision import BRANCHES, TAGS, Kind, Source, wanted_of
from airunner.agent.checkout.submodules import Submodules
from airunner.agent.checkout.treebundle import bases_of
from airunner.agent.launcher.contract import Starter
from airunner.agent.launcher.refusal import refusal_in
from airunner.agent.workspace.workspace import Workspace, remove_workspace
from airunner.protocol.blobs import TREE_REF
from airunner.protocol.gitaddress import shown_address

CHECKOUT_S_MAX: Final = 3_600.0  # seconds for a whole checkout, all git commands together
SCRATCH: Final = ".lookup"  # folder in TMPDIR, removed before the job starts


class Terms(Struct, frozen=True):
    """Terms of an agent's checkouts: the allowed sources, randomness for pauses; `tell` gets lines of progress.

    `warn` gets warnings: what the checkout lacks although it succeeds.
    """

    rules: Rules
    random: Callable[[], float]
    tell: Callable[[str], None]
    warn: Callable[[str], None]


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
    if workspace.user is None and terms.rules.safe_directories:
        _write_settings(workspace.git_settings, terms.rules.safe_directories)
    access = access_to(source.repository)
    git = Git(
        launcher=launcher,
        environment={**git_environment(agent_environ, workspace, terms.rules), **access.environment},
        folder=workspace.checkout,
        repository=source.repository,
        address=access.address,
        tell=terms.tell,
        warn=terms.warn,
        random=terms.random,
        fsck=terms.rules.fsck,
    )
    with anyio.move_on_after(CHECKOUT_S_MAX):
        commit = await _with_mirror(git, source, workspace, mirror)
        await fetch_large_files(git, rules_of_content(source.repository, terms.rules))
        if source.submodules:
            await Submodules(git, terms.rules, source).check_out(workspace.checkout)
        return commit
    raise CheckoutFailed(f"the checkout took longer than {CHECKOUT_S_MAX:.0f} s and was ended")


def _write_settings(file: Path, safe_directories: Sequence[str]) -> None:
    """Write the git configuration of one checkout. Raises `CheckoutFailed`, `MachineRefused`.

    git accepts no such setting in its arguments. Of a repository with a working tree it compares the folder `.git`.
    """
    paths = [path for given in safe_directories for path in (given, f"{given.rstrip('/')}/.git")]
    try:
        file.write_text("[safe]\n" + "".join(f'\tdirectory = "{_quoted(path)}"\n' for path in paths))
    except OSError as error:
        raise (refusal_in(error) or CheckoutFailed(f"{file} cannot be written: {error.strerror}")) from error


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


async def _with_mirror(git: Git, source: Source, workspace: Workspace, mirror: Mirror | None) -> str:
    """Check out, with objects borrowed from the mirror if possible, and return the commit's hash."""
    remote = Remote(git, workspace.temporary / SCRATCH)
    if source.depth is not None and source.bundle is None:  # a few commits transfer faster than a whole mirror
        return await _Checkout(git, source, remote).run()
    wanted = wanted_of(source)
    known_here = mirror.usable if mirror else wanted.kind is Kind.NAME
    if source.bundle is None and not known_here:  # `git clone --branch` looks first by itself
        await remote.require(wanted)
    if mirror is None:
        return await _Checkout(git, source, remote).run()
    if known := mirror.usable:
        git.tell("borrowing from the mirror")
    await mirror.make(git)
    if mirror.usable:
        mirror.restore_config()
    if mirror.faulty:
        git.tell("the mirror is damaged: checking out without it; a later job makes it again")
    if not mirror.usable:
        return await _Checkout(git, source, remote).run()
    try:
        commit = await _Checkout(git, source, remote, ("--reference", str(mirror.folder))).run()
    except CheckoutFailed as failed:
        if not known or failed.of_network or failed.scarce or failed.missing:
            raise
        git.tell("trying again without the mirror")
        remove_workspace(workspace.checkout)
        workspace.checkout.mkdir(mode=0o700, exist_ok=True)
        commit = await _Checkout(git, source, remote).run()  # if this fails too, the mirror is not at fault
        mirror.faulty = True
        return commit
    await mirror.add_objects(git, workspace.checkout)
    if mirror.copied or source.dissociate or source.in_container:
        await mirror.copy_objects(workspace.checkout)
    return commit


class _Checkout:
    """Git commands of one checkout, run one after another; `options` are for `git clone`."""

    def __init__(self, git: Git, source: Source, remote: Remote, options: tuple[str, ...] = ()) -> None:
        self._git = git
        self._source = source
        self._remote = remote
        self._wanted = wanted_of(source)
        self._options = options
        self._depth = [f"--depth={source.depth}"] if source.depth and not source.bundle else []

    async def run(self) -> str:
        """Check out, and return the full hash of the commit."""
        by_name = self._wanted.kind in (Kind.HEAD, Kind.NAME)
        try:
            if by_name or not self._depth:
                await self._clone()
                commit = await self._commit()
            else:
                commit = await self._fetch_shallow()
        except CheckoutFailed as failed:
            if lacks(failed):
                raise await self._remote.failure_for_missing(self._wanted, failed) from failed
            raise
        if self._depth and _is_bundle(self._git.address):
            self._git.warn("the repository is a bundle, of which all history is checked out: depth does not apply")
        if not by_name:
            await self._git.must_run("checkout", "--progress", "--detach", commit, "--")
        return commit

    async def _clone(self) -> None:
        """Clone, and check out the branch or tag if one is wanted."""
        options = ["--progress", "--no-local", "--template=", *self._options, *self._depth]
        if self._wanted.kind is Kind.NAME:
            options.append(f"--branch={self._wanted.text}")
        elif self._wanted.text:
            options.append("--no-checkout")
        await self._git.must_run("clone", *options, "--", self._git.address, ".")

    async def _commit(self) -> str:
        """Return the hash of the wanted commit, which is in the clone, or is fetched."""
        git, text = self._git, self._wanted.text
        match self._wanted.kind:
            case Kind.HEAD | Kind.NAME:
                if commit := await git.resolve("HEAD"):
                    return commit
                raise await self._remote.failure_for_missing(self._wanted)
            case Kind.HASH:
                commit = await git.resolve(text)
                if commit is None and self._source.ref:
                    await self._fetch(self._source.ref)
                    commit = await git.resolve(text)
                if commit is None and self._source.bundle is not None:
                    await self._unbundle(self._source.bundle)
                    commit = await git.resolve(text)
                return commit or await self._fetch(text)
            case Kind.HASH_OR_NAME:
                return await self._hash_or_name(text)
            case Kind.REF:
                return await self._named(text) or await self._fetch(text)

    async def _fetch_shallow(self) -> str:
        """Fetch the last commits of a hash or ref into a new repository, and return the commit's hash."""
        text = self._wanted.text
        if self._wanted.kind is Kind.REF:
            await self._remote.require(self._wanted)
        elif self._wanted.kind is Kind.HASH_OR_NAME:
            text = await self._remote.unabbreviated(text)
        is_hash = self._wanted.kind is Kind.HASH
        hash_format = object_format(len(text) if is_hash else (await self._remote.listing()).hash_chars)
        await self._git.must_run("init", "--quiet", "--template=", f"--object-format={hash_format}")
        await self._git.must_run("remote", "add", "--", "origin", self._git.address)
        return await self._fetch(text)

    async def _hash_or_name(self, text: str) -> str:
        """Return the only commit that `text` can mean as branch, tag or start of a hash; fail if there is not one."""
        git = self._git
        named = await self._named(BRANCHES + text) or await self._named(TAGS + text)
        if named is None:
            if commit := await git.resolve(text):
                return commit
            await git.must_run("rev-list", "--quiet", "--all")  # fails if the mirror lacks commits
            raise await self._remote.failure_for_missing(self._wanted)
        if await self._commits(text) - {named}:
            git.fail(ambiguity_message(text))
        return named

    async def _named(self, ref: str) -> str | None:
        """Return the commit of a branch or tag of the remote by its full name; None: the clone has none."""
        local = ref.replace(BRANCHES, "refs/remotes/origin/", 1) if ref.startswith(BRANCHES) else ref
        return await self._git.resolve(local)

    async def _commits(self, start: str) -> set[str]:
        """Return the commits in the clone whose hash starts with `start`."""
        listed = await self._git.run("rev-parse", f"--disambiguate={start.lower()}")
        return {name for name in listed.stdout.decode().split() if await self._git.resolve(name) == name}

    async def _fetch(self, name: str) -> str:
        """Fetch a commit that the clone lacks, by its full hash or a ref such as `refs/pull/7/head`."""
        await self._git.must_run("fetch", "--progress", "--no-tags", *self._depth, "--", "origin", name)
        return await self._git.resolve("FETCH_HEAD") or self._git.fail(f"{name} is not a commit")

    async def _unbundle(self, bundle: Path) -> None:
        """Fetch what a bundle has, and before that the commits that it needs and the clone lacks."""
        try:
            bases = bases_of(bundle)
        except (OSError, ValueError) as error:
            self._git.fail(f"the job's tree cannot be read: {error}")
        for base in bases:
            if await self._git.resolve(base) is None:
                await self._fetch_base(base)
        local = self._git.at(self._git.folder, {**self._git.environment, "GIT_ALLOW_PROTOCOL": "file"})
        await local.must_run("fetch", "--progress", "--no-tags", "--", str(bundle), TREE_REF)

    async def _fetch_base(self, base: str) -> None:
        """Fetch a commit that a bundle needs, which its submitter has seen at the remote."""
        try:
            await self._fetch(base)
        except CheckoutFailed as failed:
            if not lacks(failed):
                raise
            remote = shown_address(self._git.repository)
            words = f"{remote} has no commit {base} any more, on which the tree is built"
            mend = "run `git fetch --prune` where the job was submitted, and submit it again"
            raise CheckoutFailed(f"{words}: {mend}", failed.exit_code, missing=True) from failed


def _is_bundle(address: str) -> bool:
    """Return whether a repository is a bundle file, of which git leaves nothing out."""
    with suppress(OSError):
        return address.startswith("/") and Path(address).is_file()
    return False
