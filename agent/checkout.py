"""Puts one commit of a repository into an attempt's workspace, with git as an untrusting stranger would run it.

- A fixed argv: what a submitter wrote stands behind `--` or `--branch=`, after `repository.refusal` let it pass.
- Nothing of the machine's git is used: no system or user configuration, hooks, templates, credential
  helpers, prompts. What is passed on of the agent's environment: the way out (proxies, certificate
  authorities) and the ssh agent. ssh itself still reads the keys and known hosts of the agent's user.
- Whole history and all tags, as `git clone` gives them, so that the job's own git finds what it expects. A
  commit that no branch or tag reaches is then asked for by its name.
- git tells of its progress. A silent one is ended after `GIT_SILENCE_S`, so an unreachable host fails
  within a minute, however long a large clone may take.
- The git processes are the launcher's: when the agent is killed or its lease ends, they end too.
- No message holds a credential.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NoReturn

import anyio
from msgspec import Struct

from airunner.agent.launcher.attending import attended
from airunner.agent.launcher.contract import (
    ByteSource,
    Exit,
    LauncherDied,
    LaunchFailed,
    LaunchSpec,
    LeaseEnded,
    Process,
    Starter,
)
from airunner.agent.repository import LOCAL_SCHEME, REMOTE_SCHEMES, Source, redact, refusal
from airunner.agent.workspace import Workspace

GIT_SILENCE_S: Final = 45.0  # with the grace below, under a minute
GIT_GRACE_S: Final = 5.0  # git removes its lock files on SIGTERM
CHECKOUT_S_MAX: Final = 3_600.0
OUTPUT_BYTES_MAX: Final = 65_536  # kept of each of git's streams: the last of it
MESSAGE_CHARS_MAX: Final = 8_192

_PASSED_ON: Final = frozenset({
    "PATH", "LOGNAME", "USER", "SSH_AUTH_SOCK",
    "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "all_proxy", "https_proxy", "http_proxy", "no_proxy",
    "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "SSL_CERT_DIR", "SSL_CERT_FILE",
})  # fmt: skip
_FALLBACK_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_SETTINGS: Final = (
    "advice.detachedHead=false",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "credential.helper=",
    "gc.auto=0",  # it would go on in the background
    "maintenance.auto=false",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
)
_FULL_NAME_CHARS: Final = (40, 64)  # SHA-1, SHA-256
_PROGRESS: Final = re.compile(r"(remote: )?(Enumerating|Counting|Compressing|Total|Receiving|Resolving|Updating)\b.*\d")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SSH: Final = "ssh -oBatchMode=yes -oConnectTimeout=30 -oPermitLocalCommand=no -oClearAllForwardings=yes"


class CheckedOut(Struct, frozen=True):
    """`commit`, by its full name, stands in the checkout."""

    commit: str


class CheckoutFailed(Exception):
    """There is no checkout. `message` is git's own words, or why git was not asked; no credentials in it.

    `exit_code` is git's, None where git did not end by itself.
    """

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


async def check_out(
    launcher: Starter,
    source: Source,
    *,
    workspace: Workspace,
    agent_environ: Mapping[str, str],
    allow_local: bool = True,
) -> CheckedOut:
    """Clone `source` into the empty folder `workspace.checkout`. Cancelled, it leaves no git.

    Raises `CheckoutFailed`, `LauncherDied`, `LeaseEnded`.
    """
    if reason := refusal(source, allow_local=allow_local):
        raise CheckoutFailed(reason)
    environment = git_environment(agent_environ, workspace, allow_local=allow_local)
    checkout = _Checkout(launcher, source, workspace, environment)
    with anyio.move_on_after(CHECKOUT_S_MAX):
        return CheckedOut(await checkout.run())
    raise CheckoutFailed(f"the checkout was not done after {CHECKOUT_S_MAX:.0f} s")


def git_environment(agent_environ: Mapping[str, str], workspace: Workspace, *, allow_local: bool) -> dict[str, str]:
    """All that git sees of the world."""
    schemes = (*REMOTE_SCHEMES, LOCAL_SCHEME) if allow_local else REMOTE_SCHEMES
    return {
        "PATH": _FALLBACK_PATH,
        **{name: value for name, value in agent_environ.items() if name in _PASSED_ON},
        "HOME": str(workspace.home),
        "TMPDIR": str(workspace.temporary),
        "LC_ALL": "C.UTF-8",
        "GIT_ALLOW_PROTOCOL": ":".join(schemes),
        "GIT_ASKPASS": "",  # set and empty: no program is asked, whatever else names one
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(workspace.root),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_SSH_COMMAND": _SSH,
        "GIT_TERMINAL_PROMPT": "0",
    }


class _Ended(Struct, frozen=True):
    """What became of one git process."""

    exit: Exit | None  # None: it was silent for too long
    stdout: bytes
    stderr: bytes

    @property
    def succeeded(self) -> bool:
        return self.exit == Exit(exit_code=0, signal=None)


class _Checkout:
    """The git processes of one checkout, one after another."""

    def __init__(self, launcher: Starter, source: Source, workspace: Workspace, environment: Mapping[str, str]) -> None:
        self._launcher = launcher
        self._source = source
        self._workspace = workspace
        self._environment = environment

    async def run(self) -> str:
        """The full name of the commit that stands in the checkout."""
        source = self._source
        which = "--no-checkout" if source.commit else f"--branch={source.branch}" if source.branch else None
        options = ("--progress", "--no-local", "--template=", *([which] if which else []))
        await self._need("clone", *options, "--", source.repository, ".")
        if not source.commit:
            return await self._resolve("HEAD") or self._fail("the repository has no commit to check out")
        commit = await self._resolve(source.commit) or await self._fetch(source.commit)
        if not commit.startswith(source.commit.lower()):
            self._fail(f"{source.commit} names a branch or a tag, not a commit")
        await self._need("checkout", "--progress", "--detach", commit, "--")
        return commit

    async def _resolve(self, name: str) -> str | None:
        ended = await self._git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return ended.stdout.decode().strip() if ended.succeeded else None

    async def _fetch(self, commit: str) -> str:
        """Ask for a commit that no branch or tag reaches; servers want its full name."""
        if len(commit) not in _FULL_NAME_CHARS:
            self._fail(f"no branch or tag reaches a commit {commit}; one that none reaches needs its full name")
        await self._need("fetch", "--progress", "--no-tags", "--", "origin", commit)
        return await self._resolve(commit) or self._fail(f"{commit} is not a commit")

    async def _need(self, *arguments: str) -> None:
        """Run git and raise `CheckoutFailed` where it fails."""
        ended = await self._git(*arguments)
        if ended.succeeded:
            return
        exit_code = ended.exit.exit_code if ended.exit else None
        lines = spoken(ended.stderr)
        if ended.exit is None:
            lines.append(f"git {arguments[0]} said nothing for {GIT_SILENCE_S:.0f} s and was ended")
        elif exit_code is None:
            lines.append(f"git {arguments[0]} was ended by signal {ended.exit.signal}")
        self._fail("\n".join(lines) or f"git {arguments[0]} exited with {exit_code}", exit_code)

    def _fail(self, message: str, exit_code: int | None = None) -> NoReturn:
        raise CheckoutFailed(redact(message, self._source.repository)[-MESSAGE_CHARS_MAX:], exit_code)

    async def _git(self, *arguments: str) -> _Ended:
        settings = (part for setting in _SETTINGS for part in ("-c", setting))
        spec = LaunchSpec(("git", *settings, *arguments), self._environment, self._workspace.checkout)
        try:
            process = await self._launcher.launch(spec)
        except LaunchFailed as error:
            self._fail(f"git cannot be started: {error.message}", error.exit_code)
        async with attended(process):
            return await _attend(process)


async def _attend(process: Process) -> _Ended:
    """Read what git writes, as long as it writes; then leave nothing of it behind.

    Raises `LauncherDied`, `LeaseEnded`.
    """
    assert process.stderr is not None
    patience = anyio.CancelScope(deadline=anyio.current_time() + GIT_SILENCE_S)
    stdout, stderr = _Tail(process.stdout, patience), _Tail(process.stderr, patience)
    exit_: Exit | None = None
    failed: LauncherDied | LeaseEnded | None = None
    async with anyio.create_task_group() as readers:
        readers.start_soon(stdout.read)
        readers.start_soon(stderr.read)
        try:
            with patience:
                exit_ = await process.wait()
            await process.end(GIT_GRACE_S)
        except (LauncherDied, LeaseEnded) as error:  # out of a task group it would come wrapped
            failed = error
            readers.cancel_scope.cancel()
    if failed:
        raise failed
    return _Ended(exit_, bytes(stdout.kept), bytes(stderr.kept))


class _Tail:
    """Reads a source to its end, keeps the last of it, and moves the deadline of `patience` with each piece."""

    def __init__(self, source: ByteSource, patience: anyio.CancelScope) -> None:
        self._source = source
        self._patience = patience
        self.kept = bytearray()

    async def read(self) -> None:
        while chunk := await self._source.receive():
            self._patience.deadline = anyio.current_time() + GIT_SILENCE_S
            self.kept += chunk
            excess = len(self.kept) - OUTPUT_BYTES_MAX
            if excess > 0:  # whole lines only: half a line may show half a secret, which nobody would recognise
                del self.kept[: self.kept.find(b"\n", excess) + 1 or None]


def spoken(stderr: bytes) -> list[str]:
    """The lines for people in what git wrote: without progress, which overwrites itself, and control characters."""
    lines = [line.rpartition("\r")[2] for line in stderr.decode(errors="replace").replace("\r\n", "\n").split("\n")]
    shown = [_CONTROL.sub("", line).rstrip() for line in lines if not _PROGRESS.match(line)]
    return [line for line in shown if line and line != "Cloning into '.'..."]
