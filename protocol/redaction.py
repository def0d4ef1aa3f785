"""Secrets of a job: which of its variables hold them, and a job's text without them for its readers. Pure.

`gitaddress` redacts a repository's address: it knows where the address begins and ends.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

REDACTED: Final = "[REDACTED]"
URL_USER_CHARS_MAX: Final = 2_048  # of the longest user or password that is found; bounds the scan after each ://
_MOST: Final = f"{{0,{URL_USER_CHARS_MAX}}}"
_AUTHORITY: Final = rf"[^/?#\s]{_MOST}"
_NO_PORT: Final = rf"[^/?#\s:@\[]{_MOST}:(?![0-9]*(?:[/?#\s]|$))\S{_MOST}"
_USER: Final = re.compile(f"(?<=://)(?:{_AUTHORITY}|{_NO_PORT})@")
_USER_IN_WORD: Final = re.compile(f"(?<=://){_NO_PORT}@")
_USER_IN_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://(" + _NO_PORT.replace(r"\S", "(?s:.)") + ")@")
_SECRET_PARAMETER: Final = re.compile(
    r"(?i)(?<=[?&])([a-z0-9_.-]{0,64}(?:token|secret|password|passwd|api_?key|signature|credential))=[^&#\s'\"]+"
)

SECRET_WORDS: Final = (
    *("API_KEY", "APIKEY", "SECRET_KEY", "ACCESS_KEY", "PRIVATE_KEY", "TOKEN", "TOKENS", "SECRET", "SECRETS"),
    *("PASSWORD", "PASSWD", "PASSPHRASE", "PASS", "PAT", "CREDENTIALS", "CONNECTION_STRING"),
)
"""Names of variables whose values are secret, and ends of such names after a `_`."""

HIDDEN_BYTES_MIN: Final = 6  # shortest value that is hidden for the name of its variable
NAMED_BYTES_MIN: Final = 4  # shortest value of a secret that a job names; shorter ones show in where the marks stand

_SECRET_NAMES: Final = frozenset({*SECRET_WORDS, "PGPASSWORD", "MYSQL_PWD", "SSHPASS", "REDISCLI_AUTH"})
_SECRET_ENDS: Final = tuple(f"_{word}" for word in SECRET_WORDS)
_COMMON_WORDS: Final = frozenset(
    {*("default", "disabled", "enabled", "example", "localhost", "password", "postgres", "secret", "undefined")}
)  # values that hide nothing and stand in many logs
_SECRET_PART: Final = re.compile(
    r"(?i)(?:^|[;&?\s])[a-z0-9_. -]{0,64}(?:token|secret|password|passwd|pwd|key|signature|credential)=([^;&#\s'\"]+)"
)
PLACEHOLDERS: Final = frozenset({"", "x-oauth-basic"})  # passwords that go with a user name that is the token
USER_CHARS_MIN: Final = 8  # of a user name that, without a password, is redacted as a token; `git` is shorter


class SecretValues(Struct, frozen=True):
    """Secret values of variables: those to hide, and names of variables whose values are too short or too common."""

    hidden: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


def without_credentials(text: str) -> str:
    """Redact user and password of each URL in `text`, and query parameters such as `token=…`.

    User and password end at the last @ before the host's end, as curl reads a URL. If a colon without a port number
    would follow the host, as in `https://user:pa/ss@host`, they end at the last @ of the word.
    """
    if "@" in text:
        text = _USER.sub(f"{REDACTED}@", text)
    return _SECRET_PARAMETER.sub(rf"\1={REDACTED}", text) if "=" in text else text


def credential_spans(text: str) -> list[tuple[int, int]]:
    """Return the spans of what `without_credentials` redacts in `text`."""
    users = [(found.start(), found.end() - 1) for found in _USER.finditer(text)] if "@" in text else []
    return [*users, *((found.end(1) + 1, found.end()) for found in _SECRET_PARAMETER.finditer(text))]


def is_secret_name(name: str, patterns: Sequence[str] = ()) -> bool:
    """Return whether a variable of this name holds a secret: by its usual words, or by one of the patterns.

    `*` in a pattern matches anything, and case is ignored.
    """
    upper = name.upper()
    if upper in _SECRET_NAMES or upper.endswith(_SECRET_ENDS):
        return True
    return any(_matches(name, pattern) for pattern in patterns)


def secret_values(
    environment: Mapping[str, str],
    named: Collection[str] = (),
    opted_out: Collection[str] = (),
    patterns: Sequence[str] = (),
) -> SecretValues:
    """Find the secret values of variables: of `named` ones, of ones with secret names, and credentials in any value.

    Variables that are `opted_out` are only searched if a pattern, which is the operator's, names them.
    """
    hidden: list[str] = []
    shown: list[str] = []
    for name, value in environment.items():
        if "://" not in value and name not in named and not is_secret_name(name, patterns):
            continue
        if name in named:
            found, bytes_min = [value], NAMED_BYTES_MIN
        elif name in opted_out and not (patterns and any(_matches(name, pattern) for pattern in patterns)):
            continue
        else:
            whole = [value, *_SECRET_PART.findall(value)] if is_secret_name(name, patterns) else []
            found, bytes_min = [*whole, *credentials_in(value)], HIDDEN_BYTES_MIN
        usable = [text for text in found if _can_be_hidden(text, bytes_min, named=name in named)]
        hidden += usable
        if found and value and not usable:
            shown.append(name)
    return SecretValues(tuple(dict.fromkeys(hidden)), tuple(shown))


def credentials_in(text: str) -> list[str]:
    """List the passwords of the URLs in `text`, user names that are tokens, and the values of secret parameters.

    A password that holds `@` may end at the last @ of its word too; if the text is one URL, at the last of the text.
    """
    if "://" not in text:
        return []
    secrets = [found[0].partition("=")[2] for found in _SECRET_PARAMETER.finditer(text)]
    for found in _users_in(text):
        user, _, password = found.removesuffix("@").partition(":")
        if password not in PLACEHOLDERS:
            secrets.append(password)
        elif len(user) >= USER_CHARS_MIN:
            secrets.append(user)
    return list(dict.fromkeys((*secrets, *(unquote(secret) for secret in secrets if "%" in secret))))


def _users_in(text: str) -> Iterator[str]:
    """Yield user and password of each URL, in each way to read them."""
    if "@" in text:
        yield from (found[0] for each in (_USER, _USER_IN_WORD) for found in each.finditer(text))
        if text.count("://") == 1 and (found := _USER_IN_URL.match(text)):
            yield found[1]


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name.upper(), pattern.upper())


def _can_be_hidden(text: str, bytes_min: int, *, named: bool) -> bool:
    bare = text.strip()
    return len(bare.encode("utf-8", "surrogateescape")) >= bytes_min and (named or bare.lower() not in _COMMON_WORDS)


def merged_spans(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort spans (begin, end) of a text, and merge those that overlap."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged
