"""Which repositories, commits and branches are given to git at all, and how they are spoken of. Pure.

git takes much more for a repository than a place: `ext::sh -c …` is a program, `--upload-pack=…` an option.
So what is not plainly a URL of a known scheme, `host:path` for ssh, or an absolute path, is refused before
git sees it. How git itself tells the three apart: https://git-scm.com/docs/git-clone#_git_urls
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from airunner.protocol.redaction import REDACTED, USER, without_credentials

REMOTE_SCHEMES: Final = ("https", "ssh", "git", "http")
LOCAL_SCHEME: Final = "file"
SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
NO_PLACES: Final = frozenset({LOCAL_SCHEME, "ext", "fd"})  # --allow-local says it of the first; the others run programs
LOCAL_REFUSED: Final = "local repositories are not allowed on this agent; start it with --allow-local"

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_COMMIT: Final = re.compile(r"[0-9a-fA-F]{4,64}")
_TOKEN_CHARS_MIN: Final = 8  # a lone user name may be a token, and may be `git`, which is in every message


class Source(Struct, frozen=True, kw_only=True):
    """What is to be checked out: `commit` wins over `branch` (or tag); with neither, the remote's HEAD."""

    repository: str
    commit: str = ""
    branch: str = ""
    depth: int | None = None
    submodules: bool = False


class Rules(Struct, frozen=True):
    """From where an agent checks out."""

    schemes: tuple[str, ...] = REMOTE_SCHEMES
    allow_local: bool = False

    @property
    def transports(self) -> tuple[str, ...]:
        """As GIT_ALLOW_PROTOCOL names them."""
        return (*self.schemes, *([LOCAL_SCHEME] if self.allow_local else []))


def refusal(source: Source, rules: Rules) -> str | None:
    """Why git is not asked for this, for people; None where it may be."""
    for what, value in (("repository", source.repository), ("commit", source.commit), ("branch", source.branch)):
        if _CONTROL.search(value):
            return f"the {what} contains a control character"
        if value.startswith("-"):
            return f"the {what} begins with a dash"
    if source.commit and not _COMMIT.fullmatch(source.commit):
        return f"the commit must be 4 to 64 hexadecimal digits, not {source.commit!r}"
    return _repository_refusal(source.repository, rules)


def redact(text: str, repository: str) -> str:
    """`text` without what opens `repository`, in a URL or outside of one."""
    text = without_credentials(text)
    for secret in _secrets(repository):
        text = text.replace(secret, REDACTED)
    return text


def _repository_refusal(repository: str, rules: Rules) -> str | None:
    shown = without_credentials(repository)
    if not repository:
        return "the repository is empty"
    if _HELPER.match(repository):
        return f"{shown}: transports of the form `name::address` are not allowed"
    if scheme := _SCHEME.match(repository):
        return _url_refusal(shown, scheme[1], repository[scheme.end() :], rules)
    colon, slash = repository.find(":"), repository.find("/")
    if colon > 0 and (slash < 0 or colon < slash):
        if "ssh" not in rules.schemes:
            return _not_allowed(shown, "ssh", rules)
        return _host_refusal(shown, repository[:colon])
    if not repository.startswith("/"):
        return f"{shown}: a local repository needs an absolute path"
    return None if rules.allow_local else f"{shown}: {LOCAL_REFUSED}"


def _url_refusal(shown: str, scheme: str, rest: str, rules: Rules) -> str | None:
    if scheme == LOCAL_SCHEME:
        return None if rules.allow_local else f"{shown}: {LOCAL_REFUSED}"
    if scheme not in rules.schemes:
        return _not_allowed(shown, scheme, rules)
    return _host_refusal(shown, rest.partition("/")[0])


def _not_allowed(shown: str, scheme: str, rules: Rules) -> str:
    return (
        f"{shown}: this agent's schemes are {', '.join(rules.schemes)}; for {scheme} it must be started with "
        f"--allow-scheme {scheme}"
    )


def _host_refusal(shown: str, authority: str) -> str | None:
    """Why neither git nor ssh is given this `user@host:port`, which git decodes before it splits it."""
    authority = unquote(authority)
    host = authority.rpartition("@")[2]
    if _CONTROL.search(authority):
        return f"{shown}: the host contains a control character"
    if any(part.startswith("-") for part in (authority, *re.split("[@:[]", host))):
        return f"{shown}: the host begins with a dash"
    return f"{shown}: there is no host" if not host else None


def _secrets(repository: str) -> list[str]:
    """The password, or the user name that stands alone as a token, as written and as decoded; longest first."""
    found = USER.search(repository)
    if not found:
        return []
    user, _, password = found[0][:-1].partition(":")
    secret = password or (user if len(user) >= _TOKEN_CHARS_MIN else "")
    return sorted({secret, unquote(secret)} - {""}, key=len, reverse=True)
