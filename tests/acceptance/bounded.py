"""`python -m tests.acceptance.bounded …` is airunner as an ordinary user with few processes: root's are not counted.

The user's number is that of no user on this machine, so that nobody else's processes count.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree, which
from tempfile import mkdtemp

import pytest

from tests.acceptance.running import Process

USER_VARIABLE = "TEST_USER"
PROCESSES_VARIABLE = "TEST_PROCESSES"
USERS_FROM = 1_000_000  # beyond what distributions give to people and services

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or which("setpriv") is None or which("prlimit") is None,
    reason="only root can become another user, whose processes are bounded; by setpriv and prlimit of util-linux",
)


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


def bounded(home: Path, processes: int, arguments: list[str], more: Mapping[str, str]) -> Process:
    bounds = {USER_VARIABLE: str(user()), PROCESSES_VARIABLE: str(processes), "HOME": str(home)}
    return Process(home, arguments, {**more, **bounds}, module="tests.acceptance.bounded")


if __name__ == "__main__":
    number, count = os.environ[USER_VARIABLE], os.environ[PROCESSES_VARIABLE]
    capability = "dac_read_search"  # for an interpreter that lies where only root may look
    become = ("--reuid", number, "--regid", number, "--clear-groups", f"--inh-caps=-all,+{capability}")
    words = ("setpriv", *become, f"--ambient-caps=+{capability}", "prlimit", f"--nproc={count}", sys.executable)
    os.execvp(words[0], (*words, "-m", "airunner", *sys.argv[1:]))
