"""Screens of commands in a real terminal (tmux), and the golden files that they are compared with.

```python
with Screen(cluster, 80, "list", "--watch") as screen:
    screen.until("COMPLETED")           # what the command has written so far, wherever it is on the screen by now
    golden("list-80", screen.text())    # tests/acceptance/screens/list-80.txt
    screen.keys("q")
    assert screen.ended() == 0
```

A golden file holds a screen as it was captured, with ids, instants and measured times replaced by as many other
characters. `make screens` writes the files again; then read them. What is compared does not depend on how long things
took: times are one `#`, gaps between columns two spaces, and a text that is cut ends with its last whole word.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from tests.acceptance.running import Cluster

GOLDEN: Final = Path(__file__).parent / "screens"
WRITE: Final = "AIRUNNER_WRITE_SCREENS"  # environment variable: write the golden files instead of comparing with them
PROMPT: Final = "exited with "  # what the shell prints below a command that has ended

needs_tmux = pytest.mark.skipif(
    shutil.which("tmux") is None and "CI" not in os.environ, reason="tmux, which shows the screens, is not installed"
)
_ID: Final = "-\n?".join(rf"(?:[0-9a-f]\n?){{{digits}}}" for digits in (8, 4, 4, 4, 12))  # it may be wrapped
_VARYING: Final = (
    (re.compile(rf"\b{_ID}"), "[0-9a-f]", "f"),
    (re.compile(r"\b(?=[a-f]*[0-9])[0-9a-f]{8,12}\b"), "[0-9a-f]", "f"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?"), r"\d", "0"),
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s|min|m|h|d|KiB|MiB|GiB)\b"), r"\d", "0"),
    (re.compile(r"\bpid \d+\b"), r"\d+", "0"),
    (re.compile(r"\b\d+\.\d (?=submitted|started|ended)"), r"\d", "0"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), r"\d", "0"),
)
_COMPARED: Final = ((r"\b0[0.]* ?(ms|s|min|m|h|d|KiB|MiB|GiB)\b", "#"), (r"\s*\S*…", "…"), (r"(?<=\S) {2,}", "  "))


class Screen:
    """Screen of `airunner WORDS` in a terminal of tmux, which ends with the block."""

    def __init__(
        self, cluster: Cluster, width: int, *words: str, height: int = 24, more: Mapping[str, str] | None = None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="screen")  # short: the path of a socket has 107 bytes
        self._environ = {**cluster.environ, "LC_ALL": "C.UTF-8", **(more or {})}
        command = shlex.join([sys.executable, "-m", "airunner", *words])
        written = self._folder.name + "/written"
        os.mkfifo(written)
        script = f"trap : INT; tmux wait-for begin; {command}; echo {PROMPT}$?; tmux wait-for end"
        size = ("-x", str(width), "-y", str(height))
        self._tmux("new-session", "-d", *size, "sh", "-c", script, ";", "set-option", "-g", "status", "off")
        self._tmux("pipe-pane", f"cat > {written}")
        self._written = os.open(written, os.O_RDONLY)
        self._seen = b""
        self._tmux("wait-for", "-S", "begin")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server")
        os.close(self._written)
        self._folder.cleanup()

    def until(self, words: str) -> None:
        """Wait until the command has written these words; fails where it ends without them."""
        while (at := self._seen.find(words.encode())) < 0:
            more = os.read(self._written, 65_536)
            assert more, f"the terminal is gone, without {words!r}: {self._seen.decode()}"
            self._seen += more
        self._seen = self._seen[at + len(words) :]

    def keys(self, *names: str) -> None:
        """Press keys, by tmux's names for them: q, C-c, Enter."""
        self._tmux("send-keys", *names)

    def resize(self, width: int, height: int) -> None:
        """Give the terminal another size."""
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def text(self) -> str:
        """What the terminal shows now, without empty lines at the end."""
        return self._tmux("capture-pane", "-p").rstrip() + "\n"

    def ended(self) -> int:
        """The exit code, once the command has ended; the screen is then that of the shell, with the code below."""
        self.until(PROMPT)
        self.until("\r\n")
        return int(self.text().rpartition(PROMPT)[2])

    def _tmux(self, *words: str) -> str:
        socket = self._folder.name + "/tmux"
        command = ("tmux", "-u", "-f", "/dev/null", "-S", socket, *words)
        return subprocess.run(command, env=self._environ, check=True, capture_output=True, text=True).stdout


def golden(name: str, shown: str) -> None:
    """Compare a screen, or what a pipe got, with its golden file; or write the file."""
    path = GOLDEN / f"{name}.txt"
    for pattern, character, other in _VARYING:
        shown = pattern.sub(lambda found, old=character, new=other: re.sub(old, new, found[0]), shown)
    if os.environ.get(WRITE):
        path.write_text(shown)
    expected = path.read_text() if path.exists() else ""
    assert _compared(shown) == _compared(expected), f"{path} differs; `make screens` writes it again:\n{shown}"


def _compared(text: str) -> str:
    for pattern, other in _COMPARED:
        text = re.sub(pattern, other, text)
    return text
