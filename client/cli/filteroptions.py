"""Filter options that choose jobs, in `list` and in the commands that change many jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from airunner.protocol.errors import OperatorError

QueueOption = Annotated[str | None, typer.Option(help="Only jobs of this queue.", show_default="all")]
NameOption = Annotated[str | None, typer.Option(help="Only jobs of this name.", show_default="all")]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        "--metadata",
        "-l",
        metavar="NAME=VALUE",
        help="Only jobs with this metadata; may be repeated, for jobs with all of it.",
        show_default="all",
    ),
]


def state_option(default: str) -> Any:  # noqa: ANN401 - an option of the parser's
    """Option `--state`, with what is chosen without it."""
    return typer.Option(
        "--state",
        "--status",
        "-s",
        case_sensitive=False,
        help="Only jobs in this state; may be repeated, for jobs in any of these states.",
        show_default=default,
    )


def labels_of(words: Sequence[str]) -> Mapping[str, str]:
    """Parse the values of `--label`. Raises `OperatorError`: one is not NAME=VALUE, or there are two of one name."""
    from airunner.client.cli.request import pairs_of

    labels = pairs_of("--label", words)
    if len(labels) < len(set(words)):
        raise OperatorError("--label: a job has one value for each name, so no job matches two values of a name")
    return labels
