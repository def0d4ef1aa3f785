"""Redaction of a job for its readers: credentials in URLs, and the values of its secret variables. Pure.

A repository's address is redacted by `gitaddress`, which knows where it begins and ends.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

REDACTED: Final = "[REDACTED]"
URL_USER_CHARS_MAX: Final = 2_048  # of a user and password in the midst of a text: what is scanned at each ://
_MOST: Final = f"{{0,{URL_USER_CHARS_MAX}}}"
_AUTHORITY: Final = rf"[^/?#\s]{_MOST}"
_NO_PORT: Final = rf"[^/?#\s:@\[]{_MOST}:(?![0-9]*(?:[/?#\s]|$))\S{_MOST}"
_USER: Final = re.compile(f"(?<=://)(?:{_AUTHORITY}|{_NO_PORT})@")
_SECRET_PARAMETER: Final = re.compile(
    r"(?i)(?<=[?&])([a-z0-9_.-]{0,64}(?:token|secret|password|passwd|api_?key|signature|credential))=[^&#\s'\"]+"
)

SECRET_NAMES: Final = (
    *("*_TOKEN", "*_SECRET", "*_PASSWORD", "*_KEY"),
    *("*_PASSWD", "*_PASSPHRASE", "*_CREDENTIALS"),
    *("TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIALS", "APIKEY", "PGPASSWORD", "MYSQL_PWD"),
)
"""Patterns of the names of variables whose values are secret whatever the job says."""


def without_credentials(text: str) -> str:
    """`text`, which may hold URLs among other words, with each of them less its user and password.

    They end at the last @ before the host's end, as curl reads it. Where the host would be followed by a colon and no
    port, as in `https://user:pa/ss@host`, they end at the last @ of the word. A repository's address is split instead.
    """
    return _SECRET_PARAMETER.sub(rf"\1={REDACTED}", _USER.sub(f"{REDACTED}@", text))


def is_secret_name(name: str, patterns: Sequence[str] = SECRET_NAMES) -> bool:
    """Whether a variable of this name holds a secret; `*` in a pattern stands for anything, and case for nothing."""
    return any(fnmatchcase(name.upper(), pattern.upper()) for pattern in patterns)


def without_secrets(environment: Mapping[str, str], named: Collection[str]) -> dict[str, str]:
    """`environment` as others may see it."""
    return {
        name: REDACTED if name in named or is_secret_name(name) else without_credentials(value)
        for name, value in environment.items()
    }
