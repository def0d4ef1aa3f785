"""Variables of `--env` and env files, in docker's notation: NAME=VALUE, or NAME for the caller's own value.

An env file has one variable a line. A line that begins with `#` is a comment; blank lines and white space before a
name are skipped. A value is taken as it is, to the end of the line: quotes, backslashes and `#` are part of it. Of
several values of one name the last counts. A name without `=` whose variable is not set has the value None: the caller
decides whether it is left out or refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from airunner.protocol.errors import OperatorError
from airunner.protocol.names import fits_variable

ENV_FILE_BYTES_MAX: Final = 1_048_576  # comments count too; the environment of a job takes 64 KiB at most
ENV_FILE_LAYOUT: Final = "an env file has one variable on each line"
_NO_VARIABLE: Final = f"expected NAME=VALUE, or NAME for a variable of your environment; {ENV_FILE_LAYOUT}"


def variable_of(word: str, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """Parse NAME=VALUE or NAME into a name and its value; None: `environ` has no such variable.

    Raises `OperatorError` for a name that is empty or contains white space, and for text that no process can be given.
    """
    name, equals, value = word.partition("=")
    if not name:
        raise OperatorError(f"expected NAME=VALUE, or NAME for a variable of your environment, not {word!r}")
    if any(map(str.isspace, name)):
        raise OperatorError(f"the name {name!r} contains white space; expected NAME=VALUE")
    if "\0" in word:
        raise OperatorError(f"{name!r}: a variable cannot contain a NUL character")
    return name, value if equals else environ.get(name)


def variables_in(raw: bytes, file: str, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Parse the content of the env file `file`; values as of `variable_of`. Raises `OperatorError` with the line."""
    found: dict[str, str | None] = {}
    if len(raw) > ENV_FILE_BYTES_MAX:
        raise OperatorError(f"{file} is larger than {ENV_FILE_BYTES_MAX} bytes; {ENV_FILE_LAYOUT}")
    for number, line in enumerate(_lines(raw, file), 1):
        if not line or line.startswith("#"):
            continue
        if "=" not in line and not fits_variable(line):  # not shown: it may be a line of a secret
            raise OperatorError(f"{file}, line {number}: {_NO_VARIABLE}")
        try:
            name, value = variable_of(line, environ)
        except OperatorError as error:
            raise OperatorError(f"{file}, line {number}: {error.message}") from error
        found.pop(name, None)
        found[name] = value
    return found


def _lines(raw: bytes, file: str) -> Iterator[str]:
    """Yield the lines of an env file without white space before them, and without the ends of lines of Windows."""
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            yield line.removesuffix(b"\r").decode().lstrip()
        except UnicodeDecodeError as error:
            raise OperatorError(f"{file}, line {number}: byte {line[error.start]:#04x} is not UTF-8 text") from error
