"""Git credentials: passed to git in its environment, and in no argument and no file of the clone. Pure.

For `https://user:password@host/…` git gets the URL `https://host/…`. When this host asks for credentials, git runs the
credential helper that its environment defines; no other host gets them. The job's command does not get them either: if
it uses the remote, it needs a secret.
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
    """Access to a repository: its address without credentials, and the variables that pass the credentials to git."""

    address: str
    environment: Mapping[str, str]


def access_to(repository: str) -> Access:
    """Split `repository` into address and credentials; only http and https URLs change."""
    try:
        address = split_address(repository)
    except BadAddress:  # not reached: `repository.refusal` has refused it
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
