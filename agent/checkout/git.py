"""Git processes: runs git isolated from this machine's configuration, and reads its progress and its errors.

- git uses none of the machine's system and user configuration, hooks, templates, credential helpers and prompts. From
  the agent's environment it gets only PATH, LOGNAME, USER, SSH_AUTH_SOCK, and the variables that set proxies and CA
  certificates. ssh still reads the keys and known hosts of the user.
- git checks received objects (`transfer.fsckObjects`), as the Git project advises; `fsck` has the exceptions.
- A git that writes nothing for `GIT_SILENCE_S` is ended. So an unreachable host fails within a minute, and a large
  clone, which reports progress, may take longer.
- Network failures are retried a few times, after a pause.
- The launcher starts the git processes: when the agent is killed or the lease ends, they end too.
- No message and no argument of git contains a credential (see `credentials`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

import anyio
from msgspec import Struct, field
from msgspec.structs import replace

from airunner.agent.checkout.advice import advice_on
from airunner.agent.checkout.fsck import Fsck
from airunner.agent.checkout.repository import Rules, redact
from airunner.agent.launcher.attending import attended
from airunner.agent.launcher.contract import (
    SHORT_S,
    ByteSource,
    Exit,
    LauncherDied,
    LaunchFailed,
    LaunchSpec,
    LeaseEnded,
    Process,
    Starter,
)
from airunner.agent.launcher.refusal import Scarce
from airunner.agent.workspace.environment import absolute_path
from airunner.agent.workspace.workspace import Workspace
from airunner.protocol.events import GIT_COUNT
from airunner.protocol.names import TEXT_CHARS_MAX
from airunner.transport.backoff import Backoff

_log = logging.getLogger("airunner.git")
GIT_SILENCE_S: Final = 45.0  # seconds without output until git is ended: with the grace below, within a minute
GIT_GRACE_S: Final = 5.0  # seconds between SIGTERM, on which git removes its lock files, and SIGKILL
OUTPUT_BYTES_MAX: Final = 65_536  # stdout and stderr are each kept up to this size: the end of the output
MESSAGE_CHARS_MAX: Final = 8_192  # the end of git's error output that is reported
TRIES_MAX: Final = 4  # runs of one git command, if the network fails
PAUSE_FIRST_MS: Final = 1_000  # longest pause before the second try; it doubles with each try
PAUSE_LAST_MS: Final = 15_000  # longest pause before any try
PROGRESS_S: Final = 1.0  # seconds between two reports of the same stage
LINE_BYTES_MAX: Final = 1_024  # bytes of a line that can be a progress line; the rest of a longer line is dropped

_PASSED_ON: Final = frozenset({
    "PATH", "LOGNAME", "USER", "SSH_AUTH_SOCK",
    "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "all_proxy", "https_proxy", "http_proxy", "no_proxy",
    "GIT_LFS_SKIP_SMUDGE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "SSL_CERT_DIR", "SSL_CERT_FILE",
})  # fmt: skip
_FALLBACK_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_SETTINGS: Final = (
    "advice.detachedHead=false",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "gc.auto=0",  # a gc would continue in the background
    "maintenance.auto=false",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
    "core.protectHFS=true",  # a name that some file system reads as `.git` is not checked out, whatever fsck let pass
    "fetch.unpackLimit=1",  # store one pack file, not thousands of object files
)
_MISLEADING: Final = re.compile(r"To add an exception for this directory|\s*git config --global --add safe.directory")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NETWORK: Final = re.compile(
    r"Could not resolve host|name resolution|Failed to connect to|Connection (refused|timed out|reset|closed)"
    r"|Operation timed out|Network is unreachable|No route to host|[Ee]arly EOF|unexpected disconnect|hung up"
    r"|returned error: (429|5\d\d)|kex_exchange_identification|SSL_ERROR_SYSCALL|GnuTLS recv error|Broken pipe"
)
_FINAL: Final = re.compile(
    r"Permission denied|[Nn]ot found|does not exist|Authentication failed|not appear to be a git|not our ref"
    r"|Host key verification|No space left|promisor remote"
)
_SCARCE: Final = {
    Scarce.DISK: re.compile(
        r"No space left on device|[Qq]uota exceeded|Read-only file system|[Ii]nput/output error"
        r"|unable to write (file|new index)|could not write config|failed to write"
    ),
    Scarce.PROCESSES: re.compile(
        r"[Cc]annot (fork|allocate memory)|unable to (fork|create (async )?thread)|[Oo]ut of memory"
        r"|Resource temporarily unavailable"
    ),
    Scarce.DESCRIPTORS: re.compile(r"Too many open files"),
}
_REMOTE: Final = "remote:"  # prefix of lines that come from the remote machine
_SSH: Final = "ssh -oBatchMode=yes -oConnectTimeout=30 -oPermitLocalCommand=no -oClearAllForwardings=yes"


class CheckoutFailed(Exception):
    """Failure of a checkout. `message` is git's error output, or another reason; it contains no credentials.

    `exit_code` is that of the git that failed, or 126 or 127 if git could not be started; None: no git failed, or git
    did not exit by itself. `of_network`: git was silent for too long, or reported a network failure. `scarce`: the
    resource that this machine lacks, according to git's error output. `missing`: the remote lacks what was wanted.
    """

    def __init__(
        self,
        message: str,
        exit_code: int | None = None,
        *,
        of_network: bool = False,
        scarce: Scarce | None = None,
        missing: bool = False,
    ) -> None:
        super().__init__(message)
        self.missing = missing
        self.scarce = scarce
        self.message = message
        self.exit_code = exit_code
        self.of_network = of_network


def git_environment(agent_environ: Mapping[str, str], workspace: Workspace, rules: Rules) -> dict[str, str]:
    """Return the whole environment of git."""
    return {
        **{name: value for name, value in agent_environ.items() if name in _PASSED_ON},
        "PATH": absolute_path(agent_environ.get("PATH", "")) or _FALLBACK_PATH,
        "HOME": str(workspace.home),
        "TMPDIR": str(workspace.temporary),
        "LC_ALL": "C.UTF-8",
        "GIT_ALLOW_PROTOCOL": ":".join(rules.transports),
        "GIT_ASKPASS": "",  # set but empty: git asks no program for a password, even if another setting names one
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(workspace.root),
        "GIT_CONFIG_GLOBAL": str(workspace.git_settings) if workspace.user or rules.safe_directories else "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_SSH_COMMAND": _SSH,
        "GIT_TERMINAL_PROMPT": "0",
    }


class GitEnded(Struct, frozen=True):
    """End of one git process, and its output."""

    exit: Exit | None  # None: it was silent for too long
    stdout: bytes
    stderr: bytes

    @property
    def succeeded(self) -> bool:
        """Whether git exited with 0."""
        return self.exit == Exit(exit_code=0, signal=None)


class Git(Struct, frozen=True):
    """Git in one `folder`. `address` is the URL for git; `repository`, the submitted one, may have credentials."""

    launcher: Starter
    environment: Mapping[str, str]
    folder: Path
    repository: str
    address: str
    tell: Callable[[str], None]
    warn: Callable[[str], None]
    random: Callable[[], float]
    fsck: Fsck = Fsck.LENIENT

    def at(self, folder: Path, environment: Mapping[str, str] | None = None) -> Git:
        """Return a copy of this Git for another folder, and for another environment if it is given."""
        return replace(self, folder=folder, environment=environment or self.environment)

    async def must_run(self, *arguments: str, keep: int | None = None) -> GitEnded:
        """Run git as `run` does, and retry when the network fails. Raises `CheckoutFailed`: git failed for good."""
        backoff = Backoff(self.random, PAUSE_FIRST_MS, PAUSE_LAST_MS)
        while not (ended := await self.run(*arguments, keep=keep)).succeeded:
            failed = self._failure(ended, arguments[0])
            tries = backoff.failures + 1
            if tries == TRIES_MAX or ended.exit is None or not failed.of_network or failed.scarce:
                raise failed
            self.tell(f"{network_cause(failed.message)}; trying again ({tries + 1} of {TRIES_MAX})")
            await backoff.pause()
        return ended

    async def resolve(self, name: str) -> str | None:
        """Return the full hash of the commit that `name` refers to; None: it refers to no commit here."""
        ended = await self.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return ended.stdout.decode().strip() if ended.succeeded else None

    def fail(self, message: str, exit_code: int | None = None) -> NoReturn:
        """Raise `CheckoutFailed` with this message, credentials removed."""
        raise CheckoutFailed(self._shown(message), exit_code)

    async def run(self, *arguments: str, keep: int | None = None) -> GitEnded:
        """Run git once, and return how it ended, with the last `keep` bytes of stdout, by default `OUTPUT_BYTES_MAX`.

        Raises `CheckoutFailed`: git cannot start; and as `Starter.launch`.
        """
        settings = (part for setting in (*_SETTINGS, *self.fsck.settings) for part in ("-c", setting))
        _log.debug("running git %s", " ".join(arguments))  # the arguments contain no credentials
        spec = LaunchSpec(("git", *settings, *arguments), self.environment, self.folder, short_s=SHORT_S)
        try:
            process = await self.launcher.launch(spec)
        except LaunchFailed as error:
            self.fail(f"git cannot be started: {error.message}", error.exit_code)
        async with attended(process):
            progress = _Progress(lambda line: self.tell(redact(line, self.repository)))
            return await _attend(process, progress, keep or OUTPUT_BYTES_MAX)

    def _shown(self, message: str) -> str:
        return redact(message, self.repository)[-MESSAGE_CHARS_MAX:]

    def _failure(self, ended: GitEnded, command: str) -> CheckoutFailed:
        """Return the failure of a git process, with git's error output as its message."""
        exit_code = ended.exit.exit_code if ended.exit else None
        lines = message_lines(ended.stderr)
        if ended.exit is None:
            lines.append(f"git {command} wrote nothing for {GIT_SILENCE_S:.0f} s and was ended")
        elif exit_code is None:
            lines.append(f"git {command} was ended by signal {ended.exit.signal}")
        words = "\n".join(lines) or f"git {command} exited with {exit_code}"
        of_network = ended.exit is None or is_of_network(words)
        message = "\n".join(filter(None, (words, advice_on(words))))
        return CheckoutFailed(self._shown(message), exit_code, of_network=of_network, scarce=scarce_in(lines))


class _Progress:
    """Progress of git: reports each new stage at once, and at most one line a second within a stage."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._line = bytearray()
        self._stage = ""
        self._reported_s = 0.0

    def hear(self, chunk: bytes) -> None:
        """Process a chunk of git's error output, in which git writes its progress."""
        *lines, rest = re.split(rb"[\r\n]", bytes(self._line) + chunk)
        self._line = bytearray(rest[:LINE_BYTES_MAX])
        for raw in lines:
            line = _CONTROL.sub("", raw.decode(errors="replace")).strip()
            if GIT_COUNT.match(line):
                self._report_stage(line)

    def _report_stage(self, line: str) -> None:
        stage = line.partition(":")[0]
        now_s = anyio.current_time()
        if stage != self._stage or now_s - self._reported_s >= PROGRESS_S:
            self._stage, self._reported_s = stage, now_s
            self._tell(line[:TEXT_CHARS_MAX])


def network_cause(message: str) -> str:
    """Find the line of git's error output about the network's failure; advice may come after it."""
    lines = message.splitlines()
    return next(filter(_NETWORK.search, lines), lines[-1]).rstrip(".")


def is_of_network(words: str) -> bool:
    """Return whether git's messages report a network failure, so that another try may succeed."""
    return bool(_NETWORK.search(words)) and not _FINAL.search(words)


def scarce_in(lines: Sequence[str]) -> Scarce | None:
    """Return the resource that this machine lacks by git's messages; they may mislead (see `launcher.refusal`)."""
    words = "\n".join(line for line in lines if not line.startswith(_REMOTE))
    return next((scarce for scarce, pattern in _SCARCE.items() if pattern.search(words)), None)


async def _attend(process: Process, progress: _Progress, keep: int) -> GitEnded:
    """Read git's output to its end, end a git that is silent for too long, and leave no process behind."""
    assert process.stderr is not None
    silence = anyio.CancelScope(deadline=anyio.current_time() + GIT_SILENCE_S)
    stdout = _Tail(process.stdout, silence, keep)
    stderr = _Tail(process.stderr, silence, OUTPUT_BYTES_MAX, progress)
    exit_: Exit | None = None
    failed: LauncherDied | LeaseEnded | None = None
    async with anyio.create_task_group() as readers:
        readers.start_soon(stdout.read)
        readers.start_soon(stderr.read)
        try:
            with silence:
                exit_ = await process.wait()
            await process.end(GIT_GRACE_S)
        except (LauncherDied, LeaseEnded) as error:  # the task group would wrap it in an ExceptionGroup
            failed = error
            readers.cancel_scope.cancel()
    if failed:
        raise failed
    return GitEnded(exit_, bytes(stdout.kept), bytes(stderr.kept))


class _Tail(Struct):
    """Tail of an output stream of git, read to its end; each chunk postpones the deadline of `silence`."""

    source: ByteSource
    silence: anyio.CancelScope
    keep: int  # bytes
    progress: _Progress | None = None
    kept: bytearray = field(default_factory=bytearray)

    async def read(self) -> None:
        while chunk := await self.source.receive():
            self.silence.deadline = anyio.current_time() + GIT_SILENCE_S
            if self.progress is not None:
                self.progress.hear(chunk)
            self.kept += chunk
            excess = len(self.kept) - self.keep
            if excess > 0:  # drop whole lines: a part of a line could contain a part of a secret, and not be redacted
                del self.kept[: self.kept.find(b"\n", excess) + 1 or None]


def message_lines(stderr: bytes) -> list[str]:
    """Return the messages in git's stderr, line by line, without progress and control characters."""
    lines = [line.rpartition("\r")[2] for line in stderr.decode(errors="replace").replace("\r\n", "\n").split("\n")]
    shown = [
        _CONTROL.sub("", line).rstrip() for line in lines if not (GIT_COUNT.match(line) or _MISLEADING.match(line))
    ]
    return [line for line in shown if line and not line.startswith("Cloning into ")]
