"""Option `--timeout` of every client command: how long it waits for the broker."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from airunner.protocol.durations import duration_ms, of_flag

if TYPE_CHECKING:
    from airunner.transport.patience import Patience

TIMEOUT_S_MIN: Final = 0.1  # about what a handshake takes

TimeoutOption = Annotated[
    str | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="How long to wait for a broker that does not answer: 90, or 1m30s. A job is not bounded by it.",
        show_default="10 until one has answered, then for ever",
    ),
]

_timeout_s: ContextVar[float | None] = ContextVar("timeout_s", default=None)


def with_timeout(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option `--timeout`, if it is a client of the broker."""
    if command.__annotations__.get("broker") != "BrokerOption":
        return command

    @wraps(command)
    def bounded(*args: Any, timeout: str | None = None, **options: Any) -> Any:  # noqa: ANN401 - the command's own, of any kind
        _timeout_s.set(_seconds(timeout) if timeout else None)
        return command(*args, **options)

    added = Parameter("timeout", Parameter.KEYWORD_ONLY, default=None, annotation=TimeoutOption)
    return with_parameter(bounded, command, added)


def with_parameter(wrapper: Callable[..., Any], command: Callable[..., Any], added: Parameter) -> Callable[..., Any]:
    """Give the wrapper the command's parameters and the added one, for the parser to find."""
    known = signature(command, eval_str=True)
    parameters = [*known.parameters.values(), added]
    # Ignored: functions may have this attribute, which signature() reads; their type does not declare it.
    wrapper.__signature__ = known.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def patience(notice: Callable[[str, float | None], None]) -> Patience:
    """Make the patience that `--timeout` asks for."""
    from airunner.client.client import FIRST_PATIENCE_S
    from airunner.transport.patience import Patience

    bound_s = _timeout_s.get()
    return Patience(bound_s or FIRST_PATIENCE_S, bound_s, notice=notice)


def _seconds(text: str) -> float | None:
    """Parse seconds; None for 0, which means the default."""
    seconds = of_flag("--timeout", duration_ms, text) / 1_000
    return max(seconds, TIMEOUT_S_MIN) if seconds else None
