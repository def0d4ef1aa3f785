"""What the launcher's tests share."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Final

from airunner.agent.launcher.contract import ByteSource, LaunchSpec
from airunner.protocol.fields import TerminalSize

PATIENCE_S: Final = 10.0
ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


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
