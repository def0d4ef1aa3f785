"""Gives git what opens a repository through its environment: in no argv and in no file of the clone. Pure.

`https://user:password@host/…` is asked for as `https://host/…`. Where that host wants to know who asks, git runs the
credential helper that stands in its environment, and no other; no other host is told. A job that talks to the remote
itself brings a secret of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

_URL: Final = re.compile(r"(https?://)([^/?#]*)@([^/?#@]*)(.*)", re.DOTALL)
_USER: Final = "AIRUNNER_GIT_USER"
_WORD: Final = "AIRUNNER_GIT_PASSWORD"
_HELPER: Final = f"""!f() {{ test "$1" != get || printf 'username=%s\\npassword=%s\\n' "${_USER}" "${_WORD}"; }}; f"""


class Access(Struct, frozen=True):
    """Where a repository is, without credentials, and the variables by which git has them."""

    address: str
    environment: Mapping[str, str]


def access_to(repository: str) -> Access:
    """How git is asked for `repository`; ssh and local paths are taken as they are."""
    found = _URL.fullmatch(repository)
    if found is None:
        return Access(repository, {})
    scheme, credentials, host, path = found.groups()
    user, _, password = credentials.partition(":")
    settings = {"credential.helper": "", f"credential.{scheme}{host}.helper": _HELPER}
    variables = {"GIT_CONFIG_COUNT": str(len(settings)), _USER: unquote(user), _WORD: unquote(password)}
    for number, (key, value) in enumerate(settings.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return Access(f"{scheme}{host}{path}", variables)
