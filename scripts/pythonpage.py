"""Python reference, for `make docs`: the methods of the client, the events and the errors, from their docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from textwrap import dedent
from typing import Final, get_args

from airunner import AirunnerError, EventBody, api

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCES: Final = tuple(
    f"client/{name}.py" for name in ("client", "replaying", "searching", "artifacts", "administration")
)


def methods() -> str:
    """Write each method with its signature, its text and its example."""
    return "\n\n".join(section for source in SOURCES for section in _methods((ROOT / source).read_text()))


def events() -> str:
    """List the bodies of events, with their fields."""
    lines = ["| body | fields besides `timestamp_ms` | |", "|---|---|---|"]
    for body in get_args(EventBody):
        fields = ", ".join(f"`{name}`" for name in body.__struct_fields__ if name != "timestamp_ms")
        lines.append(f"| `{body.__name__}` | {fields} | {_one_line(body)} |".replace("|  |", "| |"))
    return "\n".join(lines)


def errors() -> str:
    """List the errors, with their codes."""
    found = {error for error in vars(api).values() if isinstance(error, type) and issubclass(error, AirunnerError)}
    lines = ["| error | code | |", "|---|---|---|"]
    for error in sorted(found - {AirunnerError}, key=lambda error: error.__name__):
        code = "by its cause" if error is api.OperatorError else f"`{error.code}`"
        lines.append(f"| `{error.__name__}` | {code} | {_one_line(error)} |")
    return "\n".join(lines)


def _methods(source: str) -> Iterator[str]:
    lines = source.splitlines()
    [client] = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    for node in client.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            signature = dedent("\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1])).removesuffix(":")
            signature = signature.replace("builtins.", "")
            text, prompt, example = (ast.get_docstring(node) or "").partition(">>> ")
            shown = f"\n\n```python\n{prompt}{example}\n```" if example else ""
            yield f"### {node.name}\n\n```python\n{signature}\n```\n\n{text.strip()}{shown}"


def _one_line(of: type) -> str:
    return cleandoc(of.__doc__ or "").replace("\n\n", "\n").replace("\n", " ")
