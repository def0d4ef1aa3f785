"""Launcher process: forks a keeper for each packet on its line, and cleans up after dead keepers.

It holds no job's state; it cannot be made to wait by a job. When the agent's end of the line closes, it
kills all that descends from it, keepers included, and exits.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from airunner.agent.launcher.child.cgroup import Groups, Limits
from airunner.agent.launcher.child.keeper import keep, refuse
from airunner.agent.launcher.child.linux import become_subreaper, set_name
from airunner.agent.launcher.child.tree import descendants, end_now, reap, signal_all
from airunner.agent.launcher.child.wakeup import Wakeup
from airunner.agent.launcher.child.wire import receive_with

STRAY_AGAIN_MS: Final = 100  # for strays that a pass over /proc missed
_PACKET_BYTES: Final = 16
_UMASK: Final = 0o022


class LauncherChild:
    """Launcher that runs in this process."""

    def __init__(self, line: socket.socket, groups: Groups) -> None:
        self._line = line
        self._groups = groups
        self._forks = 0
        self._wakeup = Wakeup((signal.SIGCHLD,))
        self._wakeup.watch(line.fileno())
        self._keepers: dict[int, int] = {}  # by process, with the numbers of their groups
        self._strays = False

    def run(self) -> None:
        """Run until the agent closes the line. On return no process is left."""
        while True:
            ready, _ = self._wakeup.wait(STRAY_AGAIN_MS if self._strays else None)
            self._reap()
            if ready and not self._accept():
                break
        end_now(self._wakeup)
        self._groups.close()

    def _accept(self) -> bool:
        """Fork a keeper for the next packet; False at the end of the line."""
        try:
            packet, descriptors = receive_with(self._line, _PACKET_BYTES)
        except ConnectionResetError:
            return False
        for descriptor in descriptors:
            with socket.socket(fileno=descriptor) as keepers_line:
                self._fork(keepers_line)
        return bool(packet)

    def _fork(self, keepers_line: socket.socket) -> None:
        launcher = os.getpid()
        self._forks += 1
        try:
            pid = os.fork()
        except OSError as error:
            refuse(keepers_line, error)
            return
        if pid:
            self._keepers[pid] = self._forks
            return
        status = 1
        try:
            self._line.close()  # or the agent's end would never be seen to close
            self._wakeup.close()
            become_subreaper()
            keep(keepers_line, launcher, self._groups.enter(self._forks))
            status = 0
        finally:
            os._exit(status)

    def _reap(self) -> None:
        """Reap ended processes, and kill what a killed keeper kept, which are our children now."""
        changed, _ = reap(os.WUNTRACED)
        for pid, status in changed:
            if os.WIFSTOPPED(status):  # by its job: a stopped keeper could not end that
                os.kill(pid, signal.SIGCONT)
                continue
            self._strays |= status != 0 or pid not in self._keepers
            if (number := self._keepers.pop(pid, None)) is not None:
                self._groups.end(number)
        if self._strays:
            strays = descendants(os.getpid(), besides=self._keepers)
            signal_all(strays, signal.SIGKILL)
            self._strays = bool(strays)


def main(descriptor: int, held: Sequence[int], group: str, bounds: Sequence[int], mark: str) -> None:
    """Run as the launcher, with the agent at the other end of the socket `descriptor`; keep `held` open.

    Control groups are made in the folder `group`, if it is not empty; the `bounds` are 0 where there is none.
    Their folder is named for the `mark` of this launcher.
    """
    for number in held:
        os.set_inheritable(number, False)  # noqa: FBT003 - its own signature. Keepers are forks and keep it
    set_name("airunner-launch")
    os.chdir("/")
    os.umask(_UMASK)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    become_subreaper()
    gc.freeze()  # forks then share more of these pages
    with socket.socket(fileno=descriptor) as line:
        line.set_inheritable(False)
        limits = Limits(*(bound or None for bound in bounds))
        LauncherChild(line, Groups(Path(group) if group else None, limits, mark)).run()
