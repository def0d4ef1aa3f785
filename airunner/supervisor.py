"""Supervisor of `airunner up`: runs a broker, an agent and a web server, starts them again, and ends all on SIGTERM.

It is a process of its own, `python -m airunner.supervisor FOLDER ANSWER SPAWN LISTEN EVENTS HTTP WEB [PARENT]`, and
holds the lock in the folder for as long as it lives. `ready ENDPOINT [URL]`, or `failed WORDS`, is written to the
descriptor `ANSWER` once. If `WEB` is `off`, there is no web server; one that does not start is left out. `PARENT` is
the reading end of a pipe: the cluster ends when the other end is closed, however its owner ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Final

READY: Final = " ready: "
OFF: Final = "off"  # instead of the address of a web server: there is none
BACKOFF_S: Final = 1.0  # before a process that has ended is started again; doubled each time
BACKOFF_S_MAX: Final = 30.0
PR_SET_PDEATHSIG: Final = 1  # of linux/prctl.h
_libc: Final = ctypes.CDLL(None)
LOG_BYTES_MAX: Final = 16 << 20
DRAIN_S: Final = 1  # for jobs to end after SIGTERM, before they are given back


class Child:
    """Child process: its command, and its stderr, which is copied to the log."""

    def __init__(self, *words: str) -> None:
        self.words = [sys.executable, "-m", "airunner", *words]
        self.backoff_s = BACKOFF_S
        self.start()

    def start(self) -> None:
        """Start the process."""
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            self.words,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,  # so that nothing of it waits in a buffer that `select` does not see
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - this process has one thread
        )
        self.started_s = time.monotonic()
        assert self.process.stderr is not None
        self.stderr: IO[bytes] = self.process.stderr

    def ready(self) -> str:
        """Copy lines to the log until the process is ready; return that line, or its last one if it has ended."""
        line = b""
        for line in self.stderr:
            _log(line)
            if READY.encode() in line:
                break
        return line.decode(errors="replace").strip()


def main(folder: Path, answer: int, spawn: str, listen: str, events: str, http: str, web: str, parent: str = "") -> int:
    """Run the cluster until SIGTERM, or until the parent ends."""
    woken, waker = socket.socketpair()
    waker.settimeout(0)  # as `set_wakeup_fd` requires
    signal.set_wakeup_fd(waker.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _wake)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _answer(answer, "failed", "another one of this home is starting")
    os.ftruncate(lock, 0)
    broker = Child("broker", "--listen", listen, "--events", events, "--http", http)
    said = broker.ready()
    if READY not in said:
        return _answer(answer, "failed", said)
    endpoint = next(word for word in said.split() if word.startswith("tcp://"))
    broker.words[broker.words.index("--listen") + 1] = endpoint
    drain = ("--drain-timeout", str(DRAIN_S))
    agent = Child("agent", "--broker", endpoint, "--spawn", spawn, "--allow-local", *drain)
    pages = [] if web == OFF else [Child("web", "--broker", endpoint, "--listen", web)]  # starts beside the agent
    said = agent.ready()
    if READY not in said:
        _end([*pages, broker])
        return _answer(answer, "failed", said)
    url = ""
    for server in tuple(pages):
        url = _url_of(server)
        if not url:
            pages.remove(server)
            server.process.wait()
    state = {"pid": os.getpid(), "broker": endpoint, "web": url}
    os.pwrite(lock, json.dumps(state).encode(), 0)
    _answer(answer, "ready", f"{endpoint} {url}".strip())
    _watch([broker, agent, *pages], [woken.fileno(), *([int(parent)] if parent else [])])
    _end([*pages, agent, broker])
    return 0


def _url_of(server: Child) -> str:
    """Wait for a web server; return its URL, at which it is from then on, or an empty text: it has ended."""
    said = server.ready()
    if READY not in said:
        return ""
    url = said.rpartition(" ")[2]
    listen = server.words.index("--listen") + 1
    if server.words[listen].endswith(":0"):
        server.words[listen] = url.rpartition("/")[2]
    return url


def _wake(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the signal's number is in the socket that `_watch` waits for."""


def _watch(children: list[Child], ends: list[int]) -> None:
    """Copy what children print, and start again those that end, until one of the descriptors `ends` can be read."""
    with selectors.DefaultSelector() as selector:
        for end in ends:
            selector.register(end, selectors.EVENT_READ)
        for child in children:
            selector.register(child.stderr, selectors.EVENT_READ, child)
        due: dict[Child, float] = {}
        while True:
            wait_s = max(0.0, min(due.values()) - time.monotonic()) if due else None
            for key, _ in selector.select(wait_s):
                child = key.data
                if child is None:
                    return
                if text := os.read(child.stderr.fileno(), 65_536):
                    _log(text)
                    continue
                selector.unregister(child.stderr)
                child.stderr.close()
                _log(f"{child.words[3]} ended with {child.process.wait()}; it is started again\n".encode())
                if time.monotonic() - child.started_s > BACKOFF_S_MAX:  # it had been well for a while
                    child.backoff_s = BACKOFF_S
                due[child] = time.monotonic() + child.backoff_s
                child.backoff_s = min(BACKOFF_S_MAX, child.backoff_s * 2)
            for child in [child for child, at_s in due.items() if at_s <= time.monotonic()]:
                del due[child]
                child.start()
                selector.register(child.stderr, selectors.EVENT_READ, child)


def _end_with_parent() -> None:
    """Let the kernel send SIGTERM to this new process when the supervisor dies, however it does."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(children: list[Child]) -> None:
    """End the children: the agent gives its jobs back while the broker still answers."""
    for child in children:
        child.process.terminate()
        if not child.stderr.closed:
            _log(child.stderr.read())
        child.process.wait()


def _answer(descriptor: int, kind: str, words: str) -> int:
    """Write the answer that `airunner up` waits for; return the exit code."""
    os.write(descriptor, f"{kind} {words.removeprefix('airunner: ')}".encode())
    os.close(descriptor)
    return 0 if kind == "ready" else 1


def _log(text: bytes) -> None:
    """Write to the log; a long one becomes `log.1`. On a full disk the cluster goes on without."""
    log = sys.stderr.fileno()
    with suppress(OSError):
        if os.fstat(log).st_size > LOG_BYTES_MAX:
            path = Path(f"/proc/self/fd/{log}").readlink()
            shutil.copyfile(path, f"{path}.1")
            os.ftruncate(log, 0)
        os.write(log, text)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
