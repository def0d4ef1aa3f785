"""What is not told of a job: the credentials in its repository's URL, and the values of its secret variables."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

REDACTED: Final = "[REDACTED]"
USER: Final = re.compile(r"(?<=://)[^/?#\s'\"]*@")  # up to the last @ of the authority, as curl reads it
"""Where a URL's user and password stand, with the @."""

SECRET_NAMES: Final = (
    *("*_TOKEN", "*_SECRET", "*_PASSWORD", "*_KEY"),
    *("*_PASSWD", "*_PASSPHRASE", "*_CREDENTIALS"),
    *("TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIALS", "APIKEY", "PGPASSWORD", "MYSQL_PWD"),
)
"""Patterns of the names of variables whose values are secret whatever the job says."""


def without_credentials(text: str) -> str:
    """`text` with every URL in it less its user and password."""
    return USER.sub(f"{REDACTED}@", text)


def is_secret_name(name: str, patterns: Sequence[str] = SECRET_NAMES) -> bool:
    """Whether a variable of this name holds a secret; `*` in a pattern stands for anything, and case for nothing."""
    return any(fnmatchcase(name.upper(), pattern.upper()) for pattern in patterns)


def without_secrets(environment: Mapping[str, str], named: Collection[str]) -> dict[str, str]:
    """`environment` as others may see it."""
    return {name: REDACTED if name in named or is_secret_name(name) else value for name, value in environment.items()}
