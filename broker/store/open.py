"""Opening of stores by their URLs, as `--store` names them."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final

from airunner.broker.store.awserrors import require_boto3
from airunner.broker.store.awsurl import AwsUrl, is_aws
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Engine, Identity
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.protocol.errors import OperatorError

MEMORY_URL: Final = "memory:"
FILE_URL: Final = "sqlite:///"


def is_postgres(url: str) -> bool:
    """Check whether a --store names a PostgreSQL server: by a URL, or by `key=value` words as libpq has them."""
    return re.match(r"postgres(ql)?:|\w+\s*=", url) is not None


def make_postgres_store(url: str, grant_to: str | None) -> str:
    """Make or upgrade the schema of a PostgreSQL store and grant a role what a broker needs; return what was done.

    Raises `OperatorError`.
    """
    if not is_postgres(url):
        raise OperatorError("--store has to name a PostgreSQL database, as postgresql://…: other stores need no init")
    require_psycopg()
    from airunner.broker.store.postgres.opening import initialise

    return initialise(url, grant_to)


def inspect_postgres(url: str, now_ms: Callable[[], int]) -> list[str]:
    """Check a PostgreSQL server without changing anything, and return warnings. Raises `OperatorError`."""
    if not is_postgres(url):
        raise OperatorError("--store has to name a PostgreSQL database, as postgresql://…")
    require_psycopg()
    from airunner.broker.store.postgres.opening import inspect

    return inspect(url, now_ms)


def require_psycopg() -> None:
    """Require the driver of PostgreSQL, which is an extra. Raises `OperatorError`."""
    try:
        import_module("psycopg")
    except ImportError as error:
        raise OperatorError("a store on PostgreSQL needs psycopg: run pip install 'airunner-jobs[postgres]'") from error


def path_of(url: str, label: str = "--store") -> Path | None:
    """Return the path of a store's file from its URL; None: the store is in memory.

    Raises `OperatorError`, which calls it `label`: the URL is neither sqlite:///PATH nor memory:.
    """
    if url == MEMORY_URL:
        return None
    if is_aws(url):
        raise OperatorError(f"{label} is on DynamoDB, whose own backups and point-in-time recovery copy and restore it")
    path = Path(url.removeprefix(FILE_URL))
    if not url.startswith(FILE_URL) or not path.name:
        named = repr(url) if "@" not in url else f"{url.partition(':')[0]}:…"  # it may contain a password
        file = "sqlite:///PATH, memory:," if "@" in url or "://" in url else f"{FILE_URL}{url} for a file,"
        others = "postgresql://HOST/DATABASE or aws:TABLE"
        raise OperatorError(f"{label} {named} is not the URL of a store; write {file} {others}")
    return path


def open_engine(url: str) -> SqliteEngine:
    """Open the engine of the store at `sqlite:///PATH` (with a fourth slash, PATH is absolute) or `memory:`.

    Raises `OperatorError`: an invalid URL, a folder that cannot be written, a file that another broker uses.
    """
    return open_sqlite(path_of(url))


def open_shared_engine(url: str, identity: Identity, now_ms: Callable[[], int]) -> Engine:
    """Open the engine of a store of several brokers on PostgreSQL or DynamoDB. Raises `OperatorError`."""
    if is_aws(url):
        require_boto3()
        from airunner.broker.store.dynamodb.opening import open_dynamodb

        return open_dynamodb(AwsUrl.parse(url), identity, now_ms)
    require_psycopg()
    from airunner.broker.store.postgres.engine import open_postgres

    return open_postgres(url, identity, now_ms)


def open_store(url: str) -> Store:
    """Open the store at a URL. Raises `OperatorError`, as `open_engine` does."""
    return Store(open_engine(url))
