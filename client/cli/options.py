"""Options of `submit` and `run` for a job's fields, made from the table in `protocol/fields.py`.

The parser leaves each value as text, which `notation` reads as it reads the values of a job file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Final

import typer

from airunner.protocol.fields import FIELDS
from airunner.protocol.form import Field, Form

Given = str | bool | list[str] | None
"""Value of an option; None: it was not given."""

_EXPLAINED: Final = (Form.NUMBER, Form.DURATION, Form.INSTANT, Form.EXPIRY, Form.SIGNAL)
_REPEATED: Final = (Form.WORDS, Form.PAIRS, Form.CACHES)
ENV_FILE: Final = "env_file"
"""Name of the option for files of variables: it gives the field `environment` some of its pairs."""


def with_parameters(command: Callable[..., Any], parameters: Sequence[Parameter]) -> Callable[..., Any]:
    """Replace the parameters of a command, as the parser sees them."""
    # Ignored: functions may have this attribute, which signature() reads; their type does not declare it.
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it, and so does Typer
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def with_job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for every job field, after `--config`, in place of its `**fields`."""
    own = list(signature(command, eval_str=True).parameters.values())[:-1]
    at = [parameter.name for parameter in own].index("config") + 1
    own[at:at] = [option for field in FIELDS.values() for option in _options(field)]
    return with_parameters(command, own)


def _options(field: Field) -> Iterator[Parameter]:
    for option in (field, *field.more):
        if option.flag.startswith("--"):
            yield Parameter(option.name, Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=_annotation(option))


def _annotation(field: Field) -> Any:  # noqa: ANN401 - an annotation that is made here
    both = field.form is Form.SWITCH and not field.means
    hint = "May be repeated." if field.form in _REPEATED else ""
    if field.form in _EXPLAINED:
        hint = f"{field.expected[0].upper()}{field.expected[1:]}."
    option = typer.Option(
        f"{field.flag}/--no-{field.flag[2:]}" if both else field.flag,
        *field.also,
        metavar=field.metavar or "|".join(field.choices) or field.form.metavar or None,
        help=" ".join(filter(None, (field.help, hint))),
        show_default=field.unset or False,
    )
    kind = list[str] if field.form in _REPEATED else bool if field.form is Form.SWITCH else str
    annotated: Any = Annotated
    return annotated[kind | None, option]
