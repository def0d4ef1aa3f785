"""Reference of the commands: their options, defaults, variables and examples, as pages of Markdown and of `man`."""

from __future__ import annotations

from typing import Any


def default_of(option: Any, ctx: Any) -> str:  # noqa: ANN401 - of the parser's, whose classes typer hides
    """Return an option's default in words; empty: it has none, or is a switch that is off."""
    if isinstance(option.show_default, str):
        return str(option.show_default)
    value = option.get_default(ctx, call=False)
    if value is None or value in ((), []) or (option.is_flag and not option.secondary_opts):
        return ""
    return ("yes" if value else "no") if option.is_flag else str(value)
