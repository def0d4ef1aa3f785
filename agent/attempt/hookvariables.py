"""Hook variables: what a hook writes to the file $AIRUNNER_ENV, for the later steps of its job.

```
NAME=VALUE              the value is the rest of the line
NAME<<END               the value is all lines up to the line END
…
END
```

Blank lines and lines that begin with `#` are skipped. Each hook gets an empty file of its own, outside of the
workspace, which is read and removed as soon as the hook and all of its processes have ended. So no command can change
it: when a command runs, the variables are in the agent's memory, and only there.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from airunner.agent.workspace.environment import RESERVED
from airunner.agent.workspace.workspace import remove_workspace
from airunner.protocol.names import VARIABLES_MAX, fits_variable

FILE_VARIABLE: Final = "AIRUNNER_ENV"
FILE_BYTES_MAX: Final = 65_536  # of one hook; the kernel takes 128 KiB for one variable, and some 2 MiB for all
_FILE_MODE: Final = 0o600
_NAME_BYTES: Final = 16
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class BadVariables(Exception):
    """Variables of a hook that cannot be used; the message says where and why."""


@contextmanager
def variables_file(folder: Path) -> Generator[Path]:
    """Make an empty file for the variables of a hook, and remove what is in its place in the end. Raises `OSError`."""
    path = folder / f"hook-{secrets.token_hex(_NAME_BYTES)}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))
    try:
        yield path
    finally:
        remove_workspace(path)


def read_variables(path: Path) -> dict[str, str]:
    """Read the variables that a hook has written; none if it has removed the file. Raises `BadVariables`."""
    try:
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError:
        return {}
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise BadVariables(f"the file cannot be read: {why}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadVariables("it is no longer a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return variables_in(file.read(FILE_BYTES_MAX + 1))
    finally:
        os.close(descriptor)


def variables_in(raw: bytes) -> dict[str, str]:
    """Parse the content of the file. Raises `BadVariables` with the line."""
    if len(raw) > FILE_BYTES_MAX:
        raise BadVariables(f"the file is larger than {FILE_BYTES_MAX} bytes")
    found: dict[str, str] = {}
    lines = enumerate(raw.decode("utf-8", "surrogateescape").split("\n"), 1)
    for number, line in lines:
        if line.strip() and not line.startswith("#"):
            name, value = _variable(number, line.removesuffix("\r"), lines)
            found[name] = value
    if len(found) > VARIABLES_MAX:
        raise BadVariables(f"there are {len(found)} variables, and at most {VARIABLES_MAX} can be set")
    return found


def _variable(number: int, line: str, lines: Iterator[tuple[int, str]]) -> tuple[str, str]:
    """Parse a variable that begins on a line, and take its further lines. Raises `BadVariables`."""
    name, equals, value = line.partition("=")
    first, here, end = line.partition("<<")
    if here and len(first) < len(name):
        name = first
    elif not equals:
        raise BadVariables(f"line {number}: expected NAME=VALUE or NAME<<END, not {line[:80]!r}")
    if not fits_variable(name):
        raise BadVariables(
            f"line {number}: {name[:80]!r} is not the name of a variable; write NAME=VALUE, without export"
        )
    if name.startswith(RESERVED):
        raise BadVariables(f"line {number}: {name} is not set: only the agent sets variables that begin with AIRUNNER")
    if name == first:
        value = "\n".join(_until(end, number, name, lines))
    if "\0" in value:
        raise BadVariables(f"line {number}: the value of {name} contains a NUL character")
    return name, value


def _until(end: str, number: int, name: str, lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    if not end:
        raise BadVariables(f"line {number}: {name}<< names no line that ends the value")
    for _, line in lines:
        if line.removesuffix("\r") == end:
            return
        yield line
    raise BadVariables(f"line {number}: no line {end!r} ends the value of {name}")
