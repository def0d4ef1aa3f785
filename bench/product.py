"""Product under measurement: the working tree, or a revision beside it. The code that measures is always today's.

Whatever imports the product runs in a process of its own: `airunner` comes from the product's tree and `bench` from the
working tree. A revision is checked out into a temporary worktree, and runs in a virtual environment of its own only if
it depends on packages that the working tree does not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Generic, ParamSpec, TypeVar, get_type_hints

import msgspec
from msgspec import Struct

ROOT: Final = Path(__file__).resolve().parents[1]

_T = TypeVar("_T")
_P = ParamSpec("_P")


class Unmeasured(Exception):
    """A process that measures has failed; the message has its last words."""


class Running(Generic[_T]):
    """Running call of a function in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], returns: type[_T]) -> None:
        self._process = process
        self._returns = returns

    def result(self) -> _T:
        """Wait for the function's result. Raises `Unmeasured`: it has failed."""
        output, errors = self._process.communicate()
        if self._process.returncode:
            words = errors.decode(errors="replace").strip().splitlines() or [f"exit {self._process.returncode}"]
            raise Unmeasured(words[-1])
        return msgspec.json.decode(output, type=self._returns)

    def kill(self) -> None:
        """End the process, if it still runs."""
        self._process.kill()
        self._process.communicate()


class Product(Struct, frozen=True):
    """Tree to measure: its name in the report, the Python that runs it, and where its `airunner` is imported from."""

    name: str
    python: str
    paths: tuple[str, ...]

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `airunner` with these arguments."""
        return [self.python, "-m", "airunner", *arguments]

    def environ(self, home: Path | None = None) -> dict[str, str]:
        """Return the environment of the product's processes, with this AIRUNNER_HOME if one is given."""
        found = {name: value for name, value in os.environ.items() if not name.startswith("AIRUNNER_")}
        found |= {"PYTHONPATH": os.pathsep.join(self.paths), "PYTHONSAFEPATH": "1"}
        return found | ({"AIRUNNER_HOME": str(home)} if home else {})

    def start(self, function: Callable[_P, _T], *args: _P.args, **_: _P.kwargs) -> Running[_T]:
        """Start a module's function in a process with this product; arguments and result travel as JSON."""
        call = msgspec.json.encode((function.__module__, function.__name__, args), enc_hook=str)  # of a Path
        process = subprocess.Popen(
            [self.python, "-m", "bench.product"],
            env=self.environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(call)
        process.stdin.close()
        process.stdin = None
        return Running(process, get_type_hints(function)["return"])

    def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function as `start` does, and wait for its result. Raises `Unmeasured`."""
        return self.start(function, *args, **kwargs).result()


def own() -> Product:
    """Return the product of this process: what `Product.start` started it with, or else the working tree."""
    paths = os.environ.get("PYTHONPATH", str(ROOT)).split(os.pathsep)
    return Product("own", sys.executable, tuple(paths))


WORKING_TREE: Final = Product("this tree", sys.executable, (str(ROOT),))


@contextmanager
def revision(name: str) -> Generator[Product]:
    """Check out a revision during the block. Raises `Unmeasured`: there is no such revision."""
    with tempfile.TemporaryDirectory(prefix="airunner-base-") as made:
        folder = Path(made)
        tree = folder / "tree"
        added = _git("worktree", "add", "--quiet", "--detach", str(tree), name)
        if added.returncode:
            raise Unmeasured(f"git cannot check out {name}: {added.stderr.strip()}")
        try:
            (folder / "path").mkdir()
            (folder / "path" / "airunner").symlink_to(tree / "airunner")  # alone: `bench` is the working tree's
            yield Product(name, _python(folder, tree), (str(folder / "path"), str(ROOT)))
        finally:
            _git("worktree", "remove", "--force", str(tree))


def end_on_sigterm() -> None:
    """End this process on SIGTERM by an exception, so that the servers which it has started are stopped."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def described() -> str:
    """Name the working tree's revision; `+` says that something in it has changed since."""
    name = _git("describe", "--always", "--dirty=+", "--abbrev=8", "--exclude=*").stdout.strip()
    return name or "unversioned"


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(("git", "-C", str(ROOT), *arguments), capture_output=True, text=True, check=False)


def _dependencies(tree: Path) -> set[str]:
    return set(tomllib.loads((tree / "pyproject.toml").read_text())["project"]["dependencies"])


def _python(folder: Path, tree: Path) -> str:
    """Return the Python for a revision: this one if it has all that the revision needs, or else that of a new venv."""
    if _dependencies(tree) <= _dependencies(ROOT):
        return sys.executable
    subprocess.run((sys.executable, "-m", "venv", folder / "venv"), check=True)
    python = str(folder / "venv" / "bin" / "python")
    subprocess.run((python, "-m", "pip", "install", "--quiet", tree), check=True)
    return python


def _path(_: type, text: str) -> Path:
    return Path(text)


def _serve() -> None:
    """Call the function that standard input names, and write its result to standard output."""
    module, name, args = msgspec.json.decode(sys.stdin.buffer.read())
    __import__(module)
    function: Callable[..., Any] = getattr(sys.modules[module], name)
    hints = [hint for argument, hint in get_type_hints(function).items() if argument != "return"]
    result = function(*(msgspec.convert(value, hint, dec_hook=_path) for value, hint in zip(args, hints, strict=False)))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    _serve()
