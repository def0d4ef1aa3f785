"""Keys of caches: the hash of the files in the checkout that a cache names, such as go.sum.

The files are found as artifacts are: below the checkout, and no link is followed. What cannot be read is as if it were
not there. A cache that names no files, or none that exist, has the key of none.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blake3 import blake3

from airunner.agent.artifacts.globs import Globs
from airunner.agent.artifacts.tree import Tree

FILES_MAX: Final = 10_000  # files that make a key
_KEY_BYTES: Final = 32
NO_FILES: Final = blake3().hexdigest(_KEY_BYTES)
"""Key of a cache that names no files, or none that exist."""


def key_of(checkout: Path, globs: tuple[str, ...]) -> str:
    """Return the key of the files that the globs name. Raises `OSError`: the checkout is gone."""
    hashed = blake3()
    with Tree(checkout) as tree:
        for path in sorted(_files(tree, Globs(globs)) if globs else ())[:FILES_MAX]:
            content = blake3()
            try:
                for chunk in tree.chunks(path):
                    content.update(chunk)
            except OSError:
                continue
            name = os.fsencode(path)
            hashed.update(b"%d %s %s" % (len(name), name, content.digest()))
    return hashed.hexdigest(_KEY_BYTES)


def _files(tree: Tree, globs: Globs) -> Iterator[str]:
    waiting = [("", globs.top)]
    while waiting:
        folder, places = waiting.pop()
        try:
            with os.scandir(tree.folder(folder)) as entries:
                listed = [(entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in entries]
        except OSError:
            continue
        for name, mode in listed:
            below = globs.below(places, name, folder=stat.S_ISDIR(mode))
            path = f"{folder}/{name}" if folder else name
            if stat.S_ISDIR(mode) and below:
                waiting.append((path, below))
            elif stat.S_ISREG(mode) and globs.matched(below):
                yield path
