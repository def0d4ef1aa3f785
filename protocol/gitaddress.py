"""Repository addresses: split into scheme, user, password, host and path, as git reads them.

git accepts three forms (https://git-scm.com/docs/git-clone#_git_urls): a URL, `user@host:path` for ssh, and a path.
Which part of a text is a password depends on where the host begins, so an ambiguous address is refused:
`https://user:pa/ss@host/x` has the host `user` for one program and `host` for another. The error says how to write
the address and repeats no part of it, because any part may be a password.

All code that shows an address, passes its credentials to git or keeps them out of a log uses this module.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from airunner.protocol.printable import is_plain
from airunner.protocol.redaction import PLACEHOLDERS, REDACTED, USER_CHARS_MIN

LOCAL_SCHEME: Final = "file"

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
_HOST: Final = re.compile(r"(\[[^\[\]@/]*\]|[^\[\]:@]*)(:[0-9]*)?")  # an IPv6 address is in brackets
_SSH_HOST: Final = re.compile(r"(?:[^:/@\[\]]*@)?(?:\[[^\[\]/]*\]|[^:/@\[\]]*):")
_SCHEMES_WITHOUT_SLASHES: Final = frozenset({"http", "https", "ssh", "git", "ftp", "ftps", LOCAL_SCHEME})
_NO_NAME: Final = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|^[./]|[./]$"
)  # git-check-ref-format(1)
_ESCAPE: Final = "write %40 for @, %2F for /, %3F for ? and %23 for # in a user name, a password or a path"


class BadAddress(ValueError):
    """Address that cannot be split; the message states the reason and shows nothing of the address."""


class GitAddress(Struct, frozen=True, kw_only=True):
    """Repository address in its parts, as they were written."""

    scheme: str = ""  # empty for `user@host:path` and for a path
    user: str | None = None  # None without an `@`
    password: str | None = None  # None without a `:` before the `@`
    host: str = ""  # with the port; empty for a path
    path: str  # everything after the host

    @property
    def is_local(self) -> bool:
        """Whether the address names a folder of the machine that reads it."""
        return self.scheme.lower() == LOCAL_SCHEME or not (self.scheme or self.host)

    @property
    def plain(self) -> str:
        """The URL without user and password."""
        return f"{self.scheme}://{self.host}{self.path}"

    @property
    def redacted(self) -> str:
        """The address without its credentials, to show it. The user of `user@host:path` is a login name, and stays."""
        if not self.scheme:
            login = "" if self.user is None else f"{self.user}@"
            return f"{login}{self.host}:{self.path}" if self.host else self.path
        return f"{self.scheme}://{'' if self.user is None else f'{REDACTED}@'}{self.host}{self.path}"

    @property
    def secrets(self) -> list[str]:
        """The credentials as written and decoded, longest first: the password, or a user name that is a token."""
        if not self.scheme or self.user is None:
            return []
        user = [self.user] if (self.password or "") in PLACEHOLDERS and len(self.user) >= USER_CHARS_MIN else []
        password = [self.password] if self.password and self.password not in PLACEHOLDERS else []
        written = [*user, *password]
        return sorted({*written, *map(unquote, written)} - {""}, key=len, reverse=True)


def split_address(repository: str) -> GitAddress:
    """Split an address into its parts. Raises `BadAddress`: it is empty, ambiguous, or of a forbidden form."""
    if not repository:
        raise BadAddress("the repository is empty")
    if not is_plain(repository):
        raise BadAddress("the repository contains a control character or an invisible one")
    if _HELPER.match(repository):
        raise BadAddress("the repository: transports of the form `name::address` are not allowed")
    if found := _URL.match(repository):
        return _split_url(found[1], repository[found.end() :])
    if found := _SSH_HOST.match(repository):
        return _split_ssh(repository[: found.end() - 1], repository[found.end() :])
    first, slash, rest = repository.partition("/")
    if "@" in first or ":" in first or (slash and not first and rest.startswith("/") and "@" in rest):
        raise BadAddress(
            "the repository: it looks like a URL without its scheme; write it as https://…, or a folder as ./…"
        )
    return GitAddress(path=repository)


def is_ref_name(text: str) -> bool:
    """Return whether a branch, tag or other ref can have this name, and no program takes it for an option."""
    return not text.startswith("-") and not _NO_NAME.search(text)


def shown_address(repository: str) -> str:
    """Return the address without its credentials; of an address that cannot be split, only the scheme."""
    if not repository:
        return ""
    try:
        return split_address(repository).redacted
    except BadAddress:
        found = _URL.match(repository)
        return f"{found[0] if found else ''}{REDACTED}"


def address_secrets(repository: str) -> list[str]:
    """Return the credentials in an address, to be redacted: if it cannot be split, everything after its scheme."""
    if not repository:
        return []
    try:
        return split_address(repository).secrets
    except BadAddress:
        found = _URL.match(repository)
        return [repository[found.end() :] if found else repository]


def _split_url(scheme: str, rest: str) -> GitAddress:
    if scheme.lower() == LOCAL_SCHEME:
        if "@" in rest.partition("/")[0]:
            raise BadAddress("the repository: a file:// URL has no user")
        return GitAddress(scheme=scheme, path=rest)
    if any(char in rest for char in " \\"):
        raise BadAddress("the repository: a URL has no space and no backslash; write %20 and %5C")
    authority, path = _cut(rest, "/?#")
    if "?" in path or "#" in path:
        raise BadAddress(f"the repository: its URL has a query or a fragment, which git does not use; {_ESCAPE}")
    credentials, at, host = authority.rpartition("@")
    found = _HOST.fullmatch(host)
    if found is None:
        raise BadAddress(f"the repository: it is ambiguous where its host begins and ends; {_ESCAPE}")
    if any(char in unicodedata.normalize("NFKC", found[1]) for char in "/?#@"):
        raise BadAddress("the repository: its host contains characters that some programs read as / ? # or @")
    if "://" in path:
        raise BadAddress(f"the repository: another URL begins in its path; {_ESCAPE}")
    _, at_in_path, behind = path.rpartition("@")
    if at_in_path and ("/" in behind or (not at and found[2])):
        raise BadAddress(f"the repository: an @ in its path could end a password; {_ESCAPE}")
    if not is_plain(unquote(authority)):
        raise BadAddress("the repository: its host, user or password contains a control character")
    if not at:
        return GitAddress(scheme=scheme, host=host, path=path)
    user, colon, password = credentials.partition(":")
    return GitAddress(scheme=scheme, user=user, password=password if colon else None, host=host, path=path)


def _split_ssh(login: str, path: str) -> GitAddress:
    user, at, host = login.rpartition("@")
    if not at and host.lower() in _SCHEMES_WITHOUT_SLASHES:
        raise BadAddress(f"the repository: two slashes follow {host.lower()}: in a URL")
    if "@" in path:
        raise BadAddress("the repository: an @ after the host's colon could end a password; write ssh://user@host/path")
    return GitAddress(user=user if at else None, host=host, path=path)


def _cut(text: str, ends: str) -> tuple[str, str]:
    """Split `text` before the first of the characters `ends`."""
    at = min((text.index(char) for char in ends if char in text), default=len(text))
    return text[:at], text[at:]
