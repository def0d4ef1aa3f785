"""How long a command waits for the broker: `--timeout`, an option of every command that asks one."""

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

TIMEOUT_S_MIN: Final = 0.1  # less than a handshake takes

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
    """The command with an option `--timeout`, if it asks a broker as a client."""
    if command.__annotations__.get("broker") != "BrokerOption":
        return command

    @wraps(command)
    def bounded(*args: Any, timeout: str | None = None, **options: Any) -> Any:  # noqa: ANN401 - the command's own, of any kind
        _timeout_s.set(_seconds(timeout) if timeout else None)
        return command(*args, **options)

    added = Parameter("timeout", Parameter.KEYWORD_ONLY, default=None, annotation=TimeoutOption)
    return with_parameter(bounded, command, added)


def with_parameter(wrapper: Callable[..., Any], command: Callable[..., Any], added: Parameter) -> Callable[..., Any]:
    """The wrapper, in which the parser finds the command's parameters and the one that is added."""
    known = signature(command, eval_str=True)
    parameters = [*known.parameters.values(), added]
    # Ignored: functions have this attribute where somebody sets it, as signature() says; their type does not know it.
    wrapper.__signature__ = known.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def patience(notice: Callable[[str, float | None], None]) -> Patience:
    """How long the broker may stay unheard, as `--timeout` says."""
    from airunner.client.client import FIRST_PATIENCE_S
    from airunner.transport.patience import Patience

    bound_s = _timeout_s.get()
    return Patience(bound_s or FIRST_PATIENCE_S, bound_s, notice=notice)


def _seconds(text: str) -> float | None:
    """None for 0, which is as if it were not given."""
    seconds = of_flag("--timeout", duration_ms, text) / 1_000
    return max(seconds, TIMEOUT_S_MIN) if seconds else None
