"""Launcher process: forks a keeper for each socket that the agent sends it, and kills the jobs of dead keepers.

It waits for no job. When the agent closes its end of the launcher's socket, the launcher kills all of its descendants,
keepers included, and exits.
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
from airunner.agent.launcher.child.keeper import refuse, run_keeper
from airunner.agent.launcher.child.linux import become_subreaper, set_name
from airunner.agent.launcher.child.tree import descendants, end_now, reap, signal_all
from airunner.agent.launcher.child.wakeup import Wakeup
from airunner.agent.launcher.child.wire import receive_with

STRAY_AGAIN_MS: Final = 100  # between passes over /proc that find strays: job processes whose keeper has died
_PACKET_BYTES: Final = 16  # more than a packet has; only the socket that is sent with it matters
_UMASK: Final = 0o022  # umask of every job


class LauncherChild:
    """Launcher that runs in this process."""

    def __init__(self, connection: socket.socket, groups: Groups) -> None:
        self._connection = connection
        self._groups = groups
        self._forks = 0
        self._wakeup = Wakeup((signal.SIGCHLD,))
        self._wakeup.watch(connection.fileno())
        self._keepers: dict[int, int] = {}  # process id of each keeper → number of its control group
        self._strays = False  # whether there may be strays

    def run(self) -> None:
        """Run until the agent closes its end of the socket. On return no process is left."""
        while True:
            ready, _ = self._wakeup.wait(STRAY_AGAIN_MS if self._strays else None)
            self._reap()
            if ready and not self._accept():
                break
        end_now(self._wakeup)
        self._groups.close()

    def _accept(self) -> bool:
        """Fork a keeper for the socket in the next packet; False: the agent has closed its end."""
        try:
            packet, descriptors = receive_with(self._connection, _PACKET_BYTES)
        except ConnectionResetError:
            return False
        for descriptor in descriptors:
            with socket.socket(fileno=descriptor) as keepers_end:
                self._fork(keepers_end)
        return bool(packet)

    def _fork(self, keepers_end: socket.socket) -> None:
        launcher = os.getpid()
        self._forks += 1
        try:
            pid = os.fork()
        except OSError as error:
            refuse(keepers_end, error)
            return
        if pid:
            self._keepers[pid] = self._forks
            return
        status = 1
        try:
            self._connection.close()  # otherwise it would stay open after the launcher's death
            self._wakeup.close()
            become_subreaper()
            run_keeper(keepers_end, launcher, self._groups.enter(self._forks))
            status = 0
        finally:
            os._exit(status)

    def _reap(self) -> None:
        """Reap ended processes; kill the processes of a dead keeper's job, which are our children now."""
        changed, _ = reap(os.WUNTRACED)
        for pid, status in changed:
            if os.WIFSTOPPED(status):  # a job has stopped its keeper, which must run to end the job
                os.kill(pid, signal.SIGCONT)
                continue
            self._strays |= status != 0 or pid not in self._keepers
            if (number := self._keepers.pop(pid, None)) is not None:
                self._groups.end(number)
        if self._strays:
            strays = descendants(os.getpid(), besides=self._keepers)
            signal_all(strays, signal.SIGKILL)
            self._strays = bool(strays)


def main(descriptor: int, held: Sequence[int], group: str, limits: Sequence[int], mark: str) -> None:
    """Run as the launcher: the agent is at the other end of the socket `descriptor`; the descriptors `held` stay open.

    `group` is the folder for control groups, "" for none; `limits` of a job are bytes of memory and processes, 0 for no
    limit. The name of the launcher's own folder in `group` contains `mark`.
    """
    for number in held:
        os.set_inheritable(number, False)  # noqa: FBT003 - programs do not inherit it, forked keepers do
    set_name("airunner-launch")
    os.chdir("/")
    os.umask(_UMASK)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    become_subreaper()
    gc.freeze()  # keepers then share more memory pages with us
    with socket.socket(fileno=descriptor) as connection:
        connection.set_inheritable(False)
        groups = Groups(Path(group) if group else None, Limits(*(limit or None for limit in limits)), mark)
        LauncherChild(connection, groups).run()
