"""Variables of options: each option may be set by `AIRUNNER_` and its name, unless it says what one call is about.

`--connect-timeout 20s` is `AIRUNNER_CONNECT_TIMEOUT=20s`, or `connect-timeout: 20s` in config.yaml. The names are made
here and nowhere else; `client/settings.py` has the list of them, which `make docs` writes.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from airunner.client.settings import PREFIX, variable_of
from airunner.protocol.errors import OperatorError

ONE_CALL: Final = frozenset(
    """
    after all any any-queue args attempt branch check command commit config context env env-file event-filter
    follow force format from-file from-sequence from-timestamp grant-to grep head ignore-case key label move name
    not-before output patch playback pty ref request-id role save-head secret secret-file since state stderr
    stdout subject until watch working-directory yes
    """.split()  # noqa: SIM905 - words
)
"""Options that say what one call is about: as a setting they would surprise, or would choose jobs in silence."""
EXCEPT: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(("list", "ls", "ps", "retry", "cancel"), frozenset({"queue", "owner"})),  # they choose jobs
    **dict.fromkeys(("certs add", "token", "login-link"), frozenset({"queue", "tenant", "cache"})),  # they give rights
    **dict.fromkeys(("cache list", "cache show", "cache rm"), frozenset({"queue"})),  # they choose caches
    **dict.fromkeys(("certs doctor", "doctor"), frozenset({"store", "token-file"})),  # they say what to check
    **dict.fromkeys(("agent", "worker"), frozenset({"http"})),  # the variable is the broker's, beside it
    "monitor": frozenset({"events"}),  # the variable is the address of a broker's events
    "wait": frozenset({"timeout"}),  # the variable bounds a job
}
"""Options of single commands without a variable: the option of that name in another command has it."""
TRUTHS: Final = {
    **dict.fromkeys(("true", "t", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "f", "0", "no", "off"), False),
}

origins: dict[str, str] = {}
"""Place in config.yaml of each variable from there."""
_taken: dict[str, str] = {}


def give_variables(command: str, options: Iterable[Any]) -> None:
    """Give each option of a command its variable, and the reader of it."""
    for option in options:
        if not hasattr(option, "is_flag"):
            continue  # an operand
        name = option.opts[0].lstrip("-")
        if option.envvar is None and name != "help" and name not in ONE_CALL | EXCEPT.get(command, frozenset()):
            option.envvar = variable_of(name)
        if option.envvar is not None:
            option.value_from_envvar = partial(_read, option)


def setting_of(option: Any) -> str:  # noqa: ANN401 - of the parser's, whose classes typer hides
    """Return the name of the setting that an option has; empty: none."""
    variable = str(option.envvar)
    return variable.removeprefix(PREFIX).lower().replace("_", "-") if variable.startswith(PREFIX) else ""


def renamed(message: str) -> str:
    """Name the variable, or the line of config.yaml, in an error about an option that was not given."""
    named = message.split(" ", 1)[0].rstrip(":")
    return message.replace(named, _taken.get(named) or origins.get(named) or named, 1)


def _read(option: Any, ctx: Any) -> Any:  # noqa: ANN401 - of the parser's
    """Read an option's value from its variable; None: not set. Raises `OperatorError`."""
    text = option.resolve_envvar_value(ctx)
    if text is None:
        return None
    variable = str(option.envvar)
    where = origins.get(variable, variable)
    _taken[option.opts[0]] = where
    if option.is_flag:
        if text.lower() not in TRUTHS:
            raise OperatorError(f"{where}: expected true or false, not {text!r}")
        return TRUTHS[text.lower()]
    if not option.multiple:
        return text
    try:
        return shlex.split(text)
    except ValueError as error:
        raise OperatorError(f"{where}: expected words, as in a shell: {error}") from error
