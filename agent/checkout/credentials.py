"""Git credentials: passed to git in its environment, in no argv and in no file of the clone. Pure.

git is given `https://host/…` for `https://user:password@host/…`. Where that host asks for credentials, git runs the
credential helper in its environment, and no other; no other host gets them. A job that talks to the remote itself
brings a secret of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from airunner.protocol.gitaddress import BadAddress, split_address

_HTTP: Final = ("https", "http")
_USER: Final = "AIRUNNER_GIT_USER"
_WORD: Final = "AIRUNNER_GIT_PASSWORD"
_HELPER: Final = f"""!f() {{ test "$1" != get || printf 'username=%s\\npassword=%s\\n' "${_USER}" "${_WORD}"; }}; f"""


class Access(Struct, frozen=True):
    """Access to a repository: its address without credentials, and the variables that give them to git."""

    address: str
    environment: Mapping[str, str]


def access_to(repository: str) -> Access:
    """Return how git gets at `repository`; ssh addresses and local paths stay as they are."""
    try:
        address = split_address(repository)
    except BadAddress:  # `repository.refusal` has it never come to this
        return Access(repository, {})
    if address.scheme not in _HTTP or address.user is None:
        return Access(repository, {})
    settings = {"credential.helper": "", f"credential.{address.scheme}://{address.host}.helper": _HELPER}
    variables = {
        "GIT_CONFIG_COUNT": str(len(settings)),
        _USER: unquote(address.user),
        _WORD: unquote(address.password or ""),
    }
    for number, (key, value) in enumerate(settings.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return Access(address.plain, variables)
