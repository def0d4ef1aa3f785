"""What the launcher's tests share."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from airunner.agent.launcher.contract import ByteSource, Exit, Launcher, LaunchSpec, Process
from airunner.protocol.fields import TerminalSize

TIMEOUT_S: Final = 10.0
ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
TREE: Final = """
trap '' TERM HUP INT; echo $$
setsid sh -c 'echo $$; while :; do sleep 1000; done' &
(setsid sh -c 'echo $$; exec sleep 1001' &)
while :; do sleep 1002; done
"""
"""Four that hold on to life: they print their process ids, three lines from three groups and sessions."""


def python(script: str, *arguments: str, become: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[bytes]:
    """An interpreter of its own, which can import the tests'."""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    words = (*become, sys.executable, "-c", script, *arguments)
    return subprocess.Popen(words, stdout=subprocess.PIPE, env=environ, **options)


def numbers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """What its next line says."""
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


async def works(launcher: Launcher, code: int = 3) -> None:
    """It runs a command to its end."""
    process = await launcher.launch(shell(f"exit {code}"))
    assert await process.wait() == Exit(code, None)
    process.close()


async def ended(process: Process, grace_s: float = TIMEOUT_S) -> Exit:
    """How the command ends, by being ended."""
    await process.end(grace_s)
    return await process.wait()


async def tree_of(process: Process, *others: int) -> Watched:
    """The processes of `TREE`, and others."""
    return Watched([*others, *(int(line) for line in await read_lines(process.stdout, 3))])


def command(
    *argv: str,
    directory: Path = Path("/"),
    terminal: TerminalSize | None = None,
    environment: dict[str, str] | None = None,
) -> LaunchSpec:
    """A spec with what does not matter filled in."""
    return LaunchSpec(argv, ENVIRONMENT if environment is None else environment, directory, terminal)


def shell(script: str, *, terminal: TerminalSize | None = None) -> LaunchSpec:
    """A spec for a script of sh."""
    return command("sh", "-c", script, terminal=terminal)


async def read_all(source: ByteSource) -> bytes:
    """Until the end."""
    chunks: list[bytes] = []
    while chunk := await source.receive():
        chunks.append(chunk)
    return b"".join(chunks)


async def read_lines(source: ByteSource, count: int) -> list[str]:
    """The first `count` lines, which the writer must not follow up at once."""
    seen = b""
    while seen.count(b"\n") < count:
        chunk = await source.receive()
        assert chunk, f"only {seen!r} came"
        seen += chunk
    return seen.decode().splitlines()


class Watched:
    """Processes that are alive now and are expected to die. Watching is by pidfd: no id can be used again."""

    def __init__(self, pids: list[int]) -> None:
        self._alive = {os.pidfd_open(pid): pid for pid in pids}

    def gone_within(self, seconds: float) -> bool:
        """Whether all have died; waits for that and no longer."""
        poll = select.poll()
        for descriptor in self._alive:
            poll.register(descriptor, select.POLLIN)
        while self._alive:
            ready = poll.poll(seconds * 1000)
            if not ready:
                return False
            for descriptor, _ in ready:
                poll.unregister(descriptor)
                del self._alive[descriptor]
                os.close(descriptor)
        return True


def children_of(parent: int) -> list[int]:
    """Also the ended ones that nobody has waited for."""
    return [
        int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit() and _parent(folder) == parent
    ]


def descriptors_of(pid: int) -> int:
    """How many it has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return 0
