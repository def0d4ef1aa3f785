"""Repository rules: which repositories, commits and branches git is given at all. Pure.

git accepts more than locations for a repository: `ext::sh -c …` is a program, `--upload-pack=…` an option.
So what is not plainly a URL of a known scheme, `host:path` for ssh, or an absolute path, is refused before
git sees it. How git itself distinguishes the three: https://git-scm.com/docs/git-clone#_git_urls
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from airunner.agent.checkout.revision import Source, revision_refusal
from airunner.protocol.gitaddress import LOCAL_SCHEME, BadAddress, GitAddress, address_secrets, split_address
from airunner.protocol.redaction import REDACTED, without_credentials

REMOTE_SCHEMES: Final = ("https", "ssh", "git", "http")
SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
NO_PLACES: Final = frozenset({LOCAL_SCHEME, "ext", "fd"})  # --allow-local says it of the first; the others run programs
LOCAL_REFUSED: Final = "local repositories are not allowed on this agent; start it with --allow-local"

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Rules(Struct, frozen=True):
    """Rules of an agent: which sources it checks out from."""

    schemes: tuple[str, ...] = REMOTE_SCHEMES
    allow_local: bool = False

    @property
    def transports(self) -> tuple[str, ...]:
        """The allowed schemes, as GIT_ALLOW_PROTOCOL names them."""
        return (*self.schemes, *([LOCAL_SCHEME] if self.allow_local else []))


def refusal(source: Source, rules: Rules) -> str | None:
    """Return why git must not be given this source; None where it may."""
    for what, value in (("repository", source.repository), ("commit", source.commit), ("branch", source.branch)):
        if _CONTROL.search(value):
            return f"the {what} contains a control character"
    if source.repository.startswith("-"):
        return "the repository begins with a dash"
    if why := revision_refusal(source):
        return why
    return _repository_refusal(source.repository, rules)


def redact(text: str, repository: str) -> str:
    """Remove the repository's credentials from `text`, and those in any other URL."""
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
        allowed = ", ".join(rules.schemes)
        remedy = f"for {scheme} it must be started with --allow-scheme {scheme}"
        return f"{address.shown}: this agent's schemes are {allowed}; {remedy}"
    return _host_refusal(address)


def _local_refusal(address: GitAddress, rules: Rules) -> str | None:
    if not address.scheme and not address.path.startswith("/"):
        return f"{address.shown}: a local repository needs an absolute path"
    return None if rules.allow_local else f"{address.shown}: {LOCAL_REFUSED}"


def _host_refusal(address: GitAddress) -> str | None:
    """Return why git and ssh must not be given this `user@host:port`, which git decodes before it splits it."""
    user, host = unquote(address.user or ""), unquote(address.host)
    if any(part.startswith("-") for part in (user, *re.split("[@:[]", host))):
        return f"{address.shown}: the host begins with a dash"
    return f"{address.shown}: there is no host" if not host.partition(":")[0] else None
