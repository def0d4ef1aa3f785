"""Python reference: writes the public names of `airunner` with their signatures and docstrings as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import EnumType
from typing import Any, Final

import airunner

DOCTEST: Final = re.compile(r"(?m)^(?:>>>|\.\.\.) .*(?:\n(?!\n).+)*")
WIDTH: Final = 100  # characters of a signature in one line


def reference() -> str:
    """Write a section for each public name, and one for each public method of a class."""
    return "\n\n".join(section for name in sorted(airunner.__all__) for section in _sections(name))


def _sections(name: str) -> Iterator[str]:
    named = getattr(airunner, name)
    if not inspect.isclass(named):
        yield f"## {name}\n\n{_doc(named)}"
        return
    if isinstance(named, EnumType):
        words = ", ".join(f"`{member.name}`" for member in named)
        yield f"## {name}\n\n{_doc(named)}\n\nOne of {words}."
        return
    yield f"## {name}\n\n{_signature(name, named)}{_doc(named)}"
    for method, function in inspect.getmembers_static(named):
        defined = method in vars(named) and not method.startswith("_")
        if defined and isinstance(function, property):
            yield f"### {name}.{method}\n\n{_doc(function)}"
        elif defined and inspect.isroutine(function):
            yield f"### {name}.{method}\n\n{_signature(method, getattr(named, method))}{_doc(function)}"


def _signature(name: str, called: Any) -> str:  # noqa: ANN401 - a class or a function
    """Write how something is called; nothing of an exception, which nobody else makes."""
    if inspect.isclass(called) and issubclass(called, BaseException):
        return ""
    signature = inspect.signature(called)
    own = signature.replace(parameters=[given for name, given in signature.parameters.items() if name != "self"])
    begin = "async def " if inspect.iscoroutinefunction(called) else "" if inspect.isclass(called) else "def "
    line = f"{begin}{name}{own}".replace("'", "")
    if len(line) > WIDTH:  # each parameter on a line of its own; commas inside of brackets separate none
        head, _, rest = line.partition("(")
        inner, _, returned = rest.rpartition(")")
        line = f"{head}(\n    " + ",\n    ".join(re.split(r", (?![^\[(]*[\])])", inner)) + f",\n){returned}"
    return f"```python\n{line}\n```\n\n"


def _doc(named: Any) -> str:  # noqa: ANN401 - anything with a docstring
    text = inspect.getdoc(named) or ""
    return DOCTEST.sub(lambda lines: f"```python\n{lines[0]}\n```", text)
