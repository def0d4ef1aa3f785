"""Launcher process, as its parent, the agent, sees it: how it is started and ends. `child/launcher.py` runs in it."""

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

# The launcher gets only the variables that an interpreter needs: jobs of its user can read them in /proc/PID/environ.
_PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME")

# Empty modules replace the packages `airunner` and `airunner.agent`: importing the real ones would import the public
# API, and with it ZeroMQ, into the launcher and every keeper.
_BOOTSTRAP: Final = """
import sys, types
descriptor, held, group, limits, mark, package, *sys.path[:] = sys.argv[1:]
for name, folder in (("airunner", package), ("airunner.agent", package + "/agent")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from airunner.agent.launcher.child.launcher import main
numbers = [int(number) for number in held.split()]
main(int(descriptor), numbers, group, [int(limit) for limit in limits.split()], mark)
"""


class LauncherSettings(NamedTuple):
    """Settings with which an agent starts each launcher process."""

    held: tuple[int, ...]  # descriptors that launcher and keepers hold open
    group: Path | None  # control group below which the launcher makes its own; None: no groups
    limits: Limits  # limits of each job
    mark: str  # mark of the agent's home
    groups: Path | None  # file that lists the control groups of all launchers of the home
    descriptors: int  # soft limit of a job's open files: the agent's before it was raised


class LauncherProcess(NamedTuple):
    """Launcher process: the child process, our end of its socket, and the prefix of its jobs' marks."""

    child: subprocess.Popen[bytes]
    connection: socket.socket
    mark: str

    def hang_up(self) -> None:
        """Close our end of the socket: the launcher then kills its descendants and exits."""
        anyio.notify_closing(self.connection)
        self.connection.close()

    async def ended(self) -> None:
        """Wait until the process has ended. Its id is not reused before we reap it."""
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.child.pid)
            try:
                await anyio.wait_readable(descriptor)
            finally:
                os.close(descriptor)


def spawn_launcher(settings: LauncherSettings) -> LauncherProcess:
    """Start a launcher process. Safe beside threads: no Python code runs between fork and exec. Raises `OSError`."""
    mark = new_launcher_mark(settings.mark)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    package = str(Path(__file__).absolute().parents[2])  # not resolved: `airunner/agent` is a link
    held = " ".join(map(str, settings.held))
    limits = " ".join(str(limit or 0) for limit in settings.limits)
    arguments = (str(theirs.fileno()), held, str(settings.group or ""), limits, mark, package, *sys.path)
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
