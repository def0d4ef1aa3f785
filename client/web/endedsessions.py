"""Ended sessions of a home: files `$AIRUNNER_HOME/web/ended/NAME`, which every server of the home sees, and later ones.

A cookie is worth what its token is, and a token cannot be revoked: so a session that was logged out is remembered until
its token expires. The name is the session's, a hash of its cookie; the time of the file is when the token expires.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from airunner.certs.secretfile import make_folder

ENDED_MAX: Final = 10_000  # sessions; beyond, those that expire first are forgotten
EXPIRES_MAX_S: Final = 2.0**33  # a time that every file system can have


class EndedSessions:
    """Ended sessions in a folder of the home, `ended_max` at the most."""

    def __init__(self, folder: Path, ended_max: int = ENDED_MAX) -> None:
        self._folder = folder / "ended"
        self._ended_max = ended_max
        make_folder(self._folder)

    def __contains__(self, name: str) -> bool:
        return (self._folder / name).exists()

    def __len__(self) -> int:
        return sum(1 for _ in self._folder.iterdir())

    def add(self, name: str, expires_s: float, now_s: float) -> None:
        """Remember a session until Unix second `expires_s`. Raises `OSError`: the disk is full, or the folder gone."""
        path = self._folder / name
        path.touch(mode=0o600)
        expires_s = min(expires_s, EXPIRES_MAX_S)
        os.utime(path, (expires_s, expires_s))
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        """Forget the sessions whose tokens have expired, and those that are too many."""
        with os.scandir(self._folder) as entries:
            ended = sorted((entry.stat().st_mtime, entry.name) for entry in entries)
        expired = sum(expires_s <= now_s for expires_s, _ in ended)
        for _, name in ended[: max(expired, len(ended) - self._ended_max)]:
            (self._folder / name).unlink(missing_ok=True)
