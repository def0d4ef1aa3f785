"""Starts processes of airunner as forks of one interpreter that has imported it, which spares each 0.4 s of its time.

In all else they are processes of their own: arguments, environment, descriptors, process group and exit code. What
`python -m airunner` itself does is left to the tests that start it so.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from threading import Lock
from typing import Any, Final

from coverage import Coverage

import airunner
from airunner.__main__ import main, run

ORDER_BYTES_MAX: Final = 1 << 18
DESCRIPTORS_MAX: Final = 1_024
LATE: Final = (
    "anyio._backends._asyncio",
    "cryptography.hazmat.backends.openssl.backend",
    "prometheus_client",
    "uvicorn.lifespan.off",
    "uvicorn.main",
    "uvicorn.protocols.http.h11_impl",
)
"""Modules that brokers and web servers import when they start."""


class Warm:
    """The interpreter; it ends with `close`, or with the process that started it."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._lock = Lock()

    def fork(self, order: dict[str, Any], descriptors: Sequence[int]) -> int:
        """The process id of another airunner; the last of `descriptors` is told its wait status."""
        with self._lock:
            socket.send_fds(self._ours, [json.dumps(order).encode()], descriptors)
            return int(self._ours.recv(32))

    def close(self) -> None:
        self._ours.close()
        self._process.wait()


class Forked(subprocess.Popen[Any]):
    """As `Popen(["python", "-m", "airunner", *ARGUMENTS])`."""

    def __init__(self, warm: Warm, arguments: Sequence[str], **options: Any) -> None:
        self._warm = warm
        self._status = -1
        super().__init__(arguments, **options)

    def _execute_child(self, args: Any, _exe: Any, _pre: Any, _close: Any, _pass: Any, cwd: Any, env: Any, *rest: Any):
        """Where Popen starts a process, once it has made the pipes."""
        *_, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, _restore, _, _, _, _, session, group = rest
        assert not session, "nobody asks for one"
        order = {"arguments": list(args), "environment": dict(env), "cwd": cwd and str(cwd), "group": group}
        ends = [own if end == -1 else end for own, end in enumerate((p2cread, c2pwrite, errwrite))]
        self._status, told = os.pipe()
        self.pid = self._warm.fork(order, [*ends, told])
        self._child_created = True
        os.close(told)
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """As `waitpid`, which is the interpreter's: it has the process for a child."""
        if not select.select([self._status], [], [], 0 if wait_flags else None)[0]:
            return 0, 0
        said = os.read(self._status, 32)
        os.close(self._status)
        return self.pid, int(said or signal.SIGKILL)

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def _serve(control: socket.socket) -> list[str]:
    """Fork for each order; returns in the fork, with its arguments."""
    _import_all()
    _end_measuring()
    gc.freeze()  # what is never looked through is never copied
    woken, waking = socket.socketpair()
    waking.setblocking(False)  # noqa: FBT003 - as the wakeup descriptor has to be
    signal.set_wakeup_fd(waking.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(4_096)
            _reap(running)
        if control not in ready:
            continue
        said, descriptors, _, _ = socket.recv_fds(control, ORDER_BYTES_MAX, 4)
        if not said:
            sys.exit()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for end in (control, woken, waking):
                end.close()
            return _become(json.loads(said), descriptors)
        for descriptor in descriptors[:3]:
            os.close(descriptor)
        running[pid] = descriptors[3]
        control.send(b"%d" % pid)


def _import_all() -> None:
    """What any command imports, typer's own parts among it, which come with the first option that it looks at."""
    for name in LATE:
        import_module(name)
    for module in walk_packages(airunner.__path__, "airunner."):
        if "child" not in module.name:  # of other processes
            import_module(module.name)
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        run(["list", "--state", "no such"])


def _end_measuring() -> None:
    """Write the coverage of the imports once, here: each fork would write it again, and take five times as long.

    A fork's own coverage begins with a look through the stack, which has to know the files of all modules: `inspect`
    remembers them from here on.
    """
    if measured := Coverage.current():
        measured.stop()
        measured.save()
        inspect.stack()


def _reap(running: dict[int, int]) -> None:
    """Tell of each that has ended how it did."""
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            told = running.pop(pid)
            os.write(told, b"%d" % status)
            os.close(told)


def _become(order: dict[str, Any], descriptors: list[int]) -> list[str]:
    """Make this fork what its order says; its arguments."""
    for own, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, own)
    os.closerange(3, DESCRIPTORS_MAX)
    if order["group"] >= 0:
        os.setpgid(0, order["group"])
    if order["cwd"]:
        os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    return order["arguments"]


if __name__ == "__main__":
    sys.argv[1:] = _serve(socket.socket(fileno=int(sys.argv[1])))
    main()
