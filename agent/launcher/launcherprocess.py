"""Launcher process: the interpreter without threads that starts keepers, as the agent starts it."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import anyio

from airunner.agent.launcher.child.cgroup import Limits, launchers_group
from airunner.agent.launcher.mark import VARIABLE, new_launcher_mark

# Of the agent's environment only variables that an interpreter needs to start: they stay readable in /proc.
_PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME")

# `airunner` and `airunner.agent` are stood in for, so that importing the launcher brings nothing else in:
# the public API would load ZeroMQ, and every fork would carry it.
_BOOTSTRAP: Final = """
import sys, types
descriptor, held, group, bounds, mark, package, *sys.path[:] = sys.argv[1:]
for name, folder in (("airunner", package), ("airunner.agent", package + "/agent")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from airunner.agent.launcher.child.launcher import main
numbers = [int(number) for number in held.split()]
main(int(descriptor), numbers, group, [int(bound) for bound in bounds.split()], mark)
"""


class LauncherSettings(NamedTuple):
    """Settings that every launcher process of this agent is started with."""

    held: tuple[int, ...]
    group: Path | None
    limits: Limits
    mark: str
    groups: Path | None
    descriptors: int  # that a job may open, until it raises its own bound; ours may be raised by now


class LauncherProcess(NamedTuple):
    """Launcher process: its child, our end of the line to it, and the mark of what it starts."""

    child: subprocess.Popen[bytes]
    line: socket.socket
    mark: str

    def hang_up(self) -> None:
        """Close our end of the line: it kills what it has started, and exits."""
        anyio.notify_closing(self.line)
        self.line.close()

    async def ended(self) -> None:
        """Wait until it has ended; until we reap it, also a dead process has its id."""
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.child.pid)
            try:
                await anyio.wait_readable(descriptor)
            finally:
                os.close(descriptor)


def spawn_launcher(settings: LauncherSettings) -> LauncherProcess:
    """Start a launcher process. None of our code runs between its fork and its exec. Raises `OSError`."""
    mark = new_launcher_mark(settings.mark)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    package = str(Path(__file__).absolute().parents[2])  # through the link: the folder that is `airunner`
    held = " ".join(map(str, settings.held))
    bounds = " ".join(str(bound or 0) for bound in settings.limits)
    arguments = (str(theirs.fileno()), held, str(settings.group or ""), bounds, mark, package, *sys.path)
    with theirs:
        try:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter and code
                (sys.executable, "-I", "-X", "utf8", "-c", _BOOTSTRAP, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *settings.held),
                env={VARIABLE: mark, **{name: os.environ[name] for name in _PASSED_ON if name in os.environ}},
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (settings.descriptors, hard))
    ours.settimeout(0)
    try:
        if settings.group is not None and settings.groups is not None:
            with settings.groups.open("a") as noted:
                print(launchers_group(settings.group, child.pid, mark), file=noted)
    except OSError:
        ours.close()
        child.wait()
        raise
    return LauncherProcess(child, ours, mark)
