"""Real repositories, made for a test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def git(folder: Path, *arguments: str) -> str:
    """What it prints; local submodules may be added."""
    done = subprocess.run(
        ("git", "-c", "protocol.file.allow=always", *arguments),
        cwd=folder,
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def new_repository(path: Path) -> Path:
    """With one commit on main."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main")
    commit(path, "one")
    return path


def commit(path: Path, word: str) -> str:
    """Its name."""
    (path / "file").write_text(word)
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message", word)
    return git(path, "rev-parse", "HEAD")


def write_object(repository: Path, kind: str, content: bytes) -> str:
    """Store an object as it is, even one that git would not make, and return its name."""
    done = subprocess.run(
        ("git", "hash-object", "-w", "--literally", "--stdin", "-t", kind),
        cwd=repository,
        env=ENVIRONMENT,
        input=content,
        check=True,
        capture_output=True,
    )
    return done.stdout.decode().strip()
