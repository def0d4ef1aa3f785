"""Opening of stores by their URLs, as `--store` names them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from airunner.broker.store.batch import Store
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.protocol.errors import OperatorError

MEMORY_URL: Final = "memory:"
FILE_URL: Final = "sqlite:///"


def path_of(url: str) -> Path | None:
    """Return the path of a store's file from its URL; None: the store is in memory.

    Raises `OperatorError`: the URL is neither sqlite:///PATH nor memory:.
    """
    if url == MEMORY_URL:
        return None
    path = Path(url.removeprefix(FILE_URL))
    if not url.startswith(FILE_URL) or not path.name:
        raise OperatorError(f"--store {url!r} is not the URL of a store; write sqlite:///PATH or memory:")
    return path


def open_engine(url: str) -> SqliteEngine:
    """Open the engine of the store at `sqlite:///PATH` (with a fourth slash, PATH is absolute) or `memory:`.

    Raises `OperatorError`: an invalid URL, a folder that cannot be written, a file that another broker uses.
    """
    return open_sqlite(path_of(url))


def open_store(url: str) -> Store:
    """Open the store at a URL. Raises `OperatorError`, as `open_engine` does."""
    return Store(open_engine(url))
