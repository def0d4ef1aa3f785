"""`python -m tests.acceptance.bounded …` is airunner with few descriptors, or as an ordinary user with few processes.

Root's processes are not counted. The user's number is that of no user on this machine, so that nobody else's count.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree, which
from tempfile import mkdtemp

import pytest

from tests.acceptance.running import Process

USER_VARIABLE = "TEST_USER"
BOUND_VARIABLE = "TEST_BOUND"  # as prlimit(1) has it
MODULE = "tests.acceptance.bounded"
USERS_FROM = 1_000_000  # beyond what distributions give to people and services

needs_prlimit = pytest.mark.skipif(which("prlimit") is None, reason="processes are bounded by prlimit of util-linux")
WHY_NOT = (
    "only root can become another user, whose processes are bounded; by setpriv and prlimit of util-linux"
    if os.geteuid() != 0 or which("setpriv") is None or which("prlimit") is None
    else ""
)
needs_root = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


@contextmanager
def homes_of_an_ordinary_user() -> Iterator[Path]:
    """A folder to make homes in, for `give`: unlike pytest's own it can be entered by others."""
    folder = Path(mkdtemp(prefix="airunner-test-"))
    try:
        folder.chmod(0o711)
        yield folder
    finally:
        rmtree(folder)


def user() -> int:
    return USERS_FROM + os.getpid()


def give(folder: Path) -> None:
    """Let the ordinary user own a folder and all that is in it."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user(), user(), follow_symlinks=False)


def become(number: int | str) -> tuple[str, ...]:
    """The words of setpriv that make a command that user's, with an interpreter that lies where only root may look."""
    capability = "dac_read_search"
    user = ("setpriv", "--reuid", f"{number}", "--regid", f"{number}", "--clear-groups")
    return (*user, f"--inh-caps=-all,+{capability}", f"--ambient-caps=+{capability}")


def bound(pid: int, words: str) -> None:
    """Bound a process of the ordinary user's that may have ended: as that user, for not every root may do it."""
    become = ["--reuid", str(user()), "--regid", str(user()), "--clear-groups"]
    command = ["setpriv", *become, "prlimit", "--pid", str(pid), words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "No such process" in done.stderr, done.stderr


def with_descriptors(home: Path, soft: int, hard: int, arguments: list[str]) -> Process:
    return Process(home, arguments, {BOUND_VARIABLE: f"--nofile={soft}:{hard}"}, module=MODULE)


if __name__ == "__main__":
    words = ["prlimit", os.environ[BOUND_VARIABLE], sys.executable, "-m", "airunner", *sys.argv[1:]]
    if number := os.environ.get(USER_VARIABLE):
        words = [*become(number), *words]
    os.execvp(words[0], words)
