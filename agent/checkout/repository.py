"""Repository rules: which repositories, commits and branches may be passed to git at all. Pure.

As a repository git also accepts programs (`ext::sh -c …`) and options (`--upload-pack=…`). So everything except a URL
of an allowed scheme, `host:path` for ssh and, with --allow-local, an absolute path is refused before git sees it. How
git distinguishes the three: https://git-scm.com/docs/git-clone#_git_urls
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from msgspec import Struct
from msgspec.structs import replace

from airunner.agent.checkout.fsck import Fsck
from airunner.agent.checkout.revision import Source, revision_refusal
from airunner.protocol.gitaddress import LOCAL_SCHEME, BadAddress, GitAddress, address_secrets, split_address
from airunner.protocol.redaction import REDACTED, without_credentials

REMOTE_SCHEMES: Final = ("https", "ssh", "git", "http")
SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
FORBIDDEN_SCHEMES: Final = frozenset({LOCAL_SCHEME, "ext", "fd"})  # `file`: see --allow-local; the others are unsafe
LOCAL_REFUSED: Final = "local repositories are not allowed on this agent; start the agent with --allow-local"

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Rules(Struct, frozen=True):
    """Rules of an agent: which URL schemes it allows, whether also local repositories, and how it checks objects."""

    schemes: tuple[str, ...] = REMOTE_SCHEMES
    allow_local: bool = False
    fsck: Fsck = Fsck.LENIENT
    safe_directories: tuple[str, ...] = ()  # local repositories that may belong to another user; `*`: all

    @property
    def transports(self) -> tuple[str, ...]:
        """The allowed schemes, as GIT_ALLOW_PROTOCOL names them."""
        return (*self.schemes, *([LOCAL_SCHEME] if self.allow_local else []))


def refusal(source: Source, rules: Rules) -> str | None:
    """Return the reason why this source must not be passed to git; None: it may be."""
    for what, value in (
        ("repository", source.repository),
        ("commit", source.commit),
        ("ref", source.ref),
        ("branch", source.branch),
    ):
        if _CONTROL.search(value):
            return f"the {what} contains a control character"
    if source.repository.startswith("-"):
        return "the repository begins with a dash"
    if why := revision_refusal(source):
        return why
    return _repository_refusal(source.repository, rules)


def rules_of_content(repository: str, rules: Rules) -> Rules:
    """Return the rules for addresses that a repository names in its files: a remote one names no local one."""
    local = refusal(Source(repository=repository), Rules(rules.schemes)) is not None
    return rules if local else replace(rules, allow_local=False)


def redact(text: str, repository: str) -> str:
    """Remove credentials from `text`: the repository's own, and those in any other URL."""
    for secret in address_secrets(repository):
        text = text.replace(secret, REDACTED)
    return without_credentials(text)


def _repository_refusal(repository: str, rules: Rules) -> str | None:
    try:
        address = split_address(repository)
    except BadAddress as bad:
        return str(bad)
    if address.is_local:
        return _local_refusal(address, rules)
    scheme = address.scheme or "ssh"
    if scheme not in rules.schemes:
        options = " ".join(f"--allow-scheme {each}" for each in (*rules.schemes, scheme))
        remedy = f"to allow {scheme} too, start the agent with {options}"
        remedy = f"{scheme} is never allowed" if scheme in FORBIDDEN_SCHEMES else remedy
        return f"{address.redacted}: this agent allows the schemes {', '.join(rules.schemes)}; {remedy}"
    return _host_refusal(address)


def _local_refusal(address: GitAddress, rules: Rules) -> str | None:
    if not address.scheme and not address.path.startswith("/"):
        return f"{address.redacted}: a local repository needs an absolute path"
    return None if rules.allow_local else f"{address.redacted}: {LOCAL_REFUSED}"


def _host_refusal(address: GitAddress) -> str | None:
    """Return the reason to refuse `user@host:port`; None: there is none. %2D counts as a dash: git decodes it."""
    user, host = unquote(address.user or ""), unquote(address.host)
    if any(part.startswith("-") for part in (user, *re.split("[@:[]", host))):
        return f"{address.redacted}: the host begins with a dash"
    return f"{address.redacted}: there is no host" if not host.partition(":")[0] else None
