"""Caches of jobs: folders that are restored before a job's command and saved after it, by name, label and key.

```
 job ──► cache (queue, label, name) ──► versions: key = hash of files such as go.sum
             restore: the version of the same key, else the newest of the name
             save: a version = the manifest (a list of files) and the pieces of the files, all of them blobs
```

A cache belongs to a tenant, a queue and a *label*. Only the jobs of a submitter whose token has the right `cache:LABEL`
save caches of the label: in the others' jobs the broker replaces `save` by `never` when they are submitted. So nobody
without the right changes what the jobs of others restore.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import combinations
from types import MappingProxyType
from typing import Annotated, Final

from msgspec import Meta, Struct
from msgspec.structs import replace

from airunner.protocol.blobs import Slice
from airunner.protocol.errors import FieldError
from airunner.protocol.names import JobId, Name, Natural
from airunner.protocol.printable import is_plain

CACHES_MAX: Final = 16  # of one job
PATHS_MAX: Final = 16  # of one cache
KEY_GLOBS_MAX: Final = 16
PATH_CHARS_MAX: Final = 1_024
KEY_CHARS_MAX: Final = 64  # of a hash in hexadecimal digits
INDEX_MAX: Final = 64  # slices of a manifest: 64 MiB at most
CACHE_IDS_MAX: Final = 24_576  # blobs of one version: 24 GiB of files
HASH_BYTES: Final = 32
LABEL_DEFAULT: Final = "default"
EVERY_LABEL: Final = "*"  # in a token: it may save caches of all labels
CACHE_NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,63}\Z"
CACHE_NAME_EXPECTED: Final = "1 to 64 small letters, digits and any of ._-, the first a letter or a digit"
KEY_PATTERN: Final = rf"^[0-9a-f]{{1,{KEY_CHARS_MAX}}}\Z"
KEY_EXPECTED: Final = f"1 to {KEY_CHARS_MAX} hexadecimal digits"
HOME: Final = "~/"

CacheName = Annotated[str, Meta(pattern=CACHE_NAME_PATTERN)]
CacheKey = Annotated[str, Meta(pattern=KEY_PATTERN)]
CachePath = Annotated[str, Meta(min_length=1, max_length=PATH_CHARS_MAX)]
CacheIndex = Annotated[tuple[Slice, ...], Meta(min_length=1, max_length=INDEX_MAX)]
CacheIds = Annotated[bytes, Meta(max_length=CACHE_IDS_MAX * HASH_BYTES)]
CacheScope = frozenset[str]
"""Labels of which jobs may save caches; `EVERY_LABEL` stands for all."""


class SaveWhen(StrEnum):
    """When a job saves a cache: when its command has succeeded, when it has ended, or never."""

    ON_SUCCESS = "on-success"
    ALWAYS = "always"
    NEVER = "never"


class Cache(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Cache of a job: `paths` below its home (`~/…`) or its checkout; `key` has globs of files in the checkout.

    The content of the files makes the key of the version that the job restores and saves.
    """

    name: CacheName
    paths: Annotated[tuple[CachePath, ...], Meta(min_length=1, max_length=PATHS_MAX)]
    key: Annotated[tuple[CachePath, ...], Meta(max_length=KEY_GLOBS_MAX)] = ()
    label: CacheName = LABEL_DEFAULT
    restore: bool = True
    save: SaveWhen = SaveWhen.ON_SUCCESS


class CacheEntry(Struct, frozen=True, kw_only=True):
    """Version of a cache, as a job restores it; `index` has the slices of its manifest."""

    key: CacheKey
    job_id: JobId  # that has saved it
    saved_ms: Natural
    size_bytes: Natural  # of its files
    index: CacheIndex


class CacheSummary(Struct, frozen=True, kw_only=True):
    """Version of a cache in a list; `used_ms`: the hour of the last restore, or when it was saved."""

    queue: Name
    label: CacheName
    name: CacheName
    key: CacheKey
    job_id: JobId
    saved_ms: Natural
    used_ms: Natural
    size_bytes: Natural


PRESETS: Final = MappingProxyType(
    {
        cache.name: cache
        for cache in (
            Cache(name="go", paths=("~/.cache/go-build", "~/go/pkg/mod"), key=("**/go.sum",)),
            Cache(name="cargo", paths=("~/.cargo/registry", "~/.cargo/git", "target"), key=("**/Cargo.lock",)),
            Cache(name="pip", paths=("~/.cache/pip",), key=("**/requirements*.txt", "**/pyproject.toml")),
            Cache(name="uv", paths=("~/.cache/uv",), key=("**/uv.lock",)),
            Cache(name="npm", paths=("~/.npm",), key=("**/package-lock.json",)),
            Cache(name="pnpm", paths=("~/.local/share/pnpm/store",), key=("**/pnpm-lock.yaml",)),
            Cache(name="ccache", paths=("~/.cache/ccache",)),
            Cache(
                name="gradle",
                paths=("~/.gradle/caches", "~/.gradle/wrapper"),
                key=("**/*.gradle", "**/*.gradle.kts", "**/gradle-wrapper.properties"),
            ),
            Cache(name="maven", paths=("~/.m2/repository",), key=("**/pom.xml",)),
        )
    }
)
"""Caches of known tools, by name."""


def check_caches(caches: Sequence[Cache]) -> None:
    """Check the caches of a job. Raises `FieldError`: paths out of home or checkout, or that overlap; a name twice."""
    for number, cache in enumerate(caches):
        for path in cache.paths:
            if (problem := _path_problem(path)) is not None:
                raise FieldError("caches", f"{cache.name}: {problem}", number)
        for glob in cache.key:
            if glob.startswith("/") or ".." in glob.split("/") or not is_plain(glob):
                problem = f"{cache.name}: expected a key of files below the checkout, such as **/go.sum, not {glob!r}"
                raise FieldError("caches", problem, number)
        if any((cache.label, cache.name) == (other.label, other.name) for other in caches[:number]):
            raise FieldError("caches", f"the cache {cache.name} is given twice", number)
    for one, other in combinations(sorted(_paths_of(caches)), 2):
        if other == one or other[: len(one)] == one:
            raise FieldError("caches", f"the path {'/'.join(other)} is in two caches, or in one twice")


def _path_problem(path: str) -> str | None:
    parts = path.removeprefix(HOME).split("/")
    if not is_plain(path) or not {"", ".", "..", "~"}.isdisjoint(parts):
        return f"expected a path such as ~/.cache/go-build, or one below the checkout, not {path!r}"
    return f"{path!r} is Git's own" if parts[0] == ".git" and not path.startswith(HOME) else None


def _paths_of(caches: Sequence[Cache]) -> Iterator[tuple[str, ...]]:
    return (tuple(path.split("/")) for cache in caches for path in cache.paths)


def fits_cache_name(text: str) -> bool:
    """Return whether `text` is a valid name or label of a cache."""
    return re.match(CACHE_NAME_PATTERN, text) is not None


def fits_key(text: str) -> bool:
    """Return whether `text` is a valid key, or the beginning of one."""
    return re.match(KEY_PATTERN, text) is not None


def may_save(scope: CacheScope, label: str) -> bool:
    """Return whether a token with the labels of `scope` has the right `cache:LABEL`."""
    return label in scope or EVERY_LABEL in scope


def permitted(caches: Sequence[Cache], scope: CacheScope) -> tuple[Cache, ...]:
    """Return the caches as a job may have them whose submitter has the labels of `scope`: others are never saved."""
    return tuple(cache if may_save(scope, cache.label) else replace(cache, save=SaveWhen.NEVER) for cache in caches)
