"""Redaction of a job for its readers: removes credentials in URLs and the values of its secret variables.

`gitaddress` redacts a repository's address: it knows where the address begins and ends.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

REDACTED: Final = "[REDACTED]"
URL_USER_CHARS_MAX: Final = 2_048  # of the longest user or password that is found; bounds the scan after each ://
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
"""Name patterns of variables whose values are always secret."""


def without_credentials(text: str) -> str:
    """Redact user and password of each URL in `text`, and query parameters such as `token=…`.

    User and password end at the last @ before the host's end, as curl reads a URL. If a colon without a port number
    would follow the host, as in `https://user:pa/ss@host`, they end at the last @ of the word.
    """
    return _SECRET_PARAMETER.sub(rf"\1={REDACTED}", _USER.sub(f"{REDACTED}@", text))


def is_secret_name(name: str, patterns: Sequence[str] = SECRET_NAMES) -> bool:
    """Return whether a variable of this name holds a secret; `*` in a pattern matches anything, and case is ignored."""
    return any(fnmatchcase(name.upper(), pattern.upper()) for pattern in patterns)


def without_secrets(environment: Mapping[str, str], named: Collection[str]) -> dict[str, str]:
    """Return `environment` with its secret values redacted."""
    return {
        name: REDACTED if name in named or is_secret_name(name) else without_credentials(value)
        for name, value in environment.items()
    }
