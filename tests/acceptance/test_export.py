"""Recordings are played by asciinema, and show what the terminal showed."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyte
import pytest

from tests.acceptance.running import Cluster, submitted

PLAYER_2 = str(Path(sys.executable).parent / "asciinema")  # of PyPI, which plays asciicast v2 only
PLAYER_3 = shutil.which("asciinema", path=os.environ["PATH"].replace(str(Path(PLAYER_2).parent), "")) or ""


def plays_casts() -> bool:
    """Whether an asciinema is installed that plays asciicast v3: neither Debian nor PyPI have one."""
    return bool(PLAYER_3) and subprocess.check_output([PLAYER_3, "--version"]).startswith(b"asciinema 3")


needs_asciinema_3 = pytest.mark.skipif(not plays_casts(), reason="asciinema 3 is not there: cargo install asciinema")
COLOURED = r"""
printf '\033[1;32mok\033[0m \033[38;5;208morange\033[0m é漢字 \033[7mreversed\033[0m\n'
for number in $(seq 40); do printf '\rprogress %d' $number; done; echo
for number in $(seq 30); do echo line $number; done
printf '\033[3A\033[41mover\033[0m\033[3B\rend'
"""
COLS, ROWS = 80, 24


def screen_of(output: bytes) -> pyte.Screen:
    screen = pyte.Screen(COLS, ROWS)
    pyte.ByteStream(screen).feed(output)
    return screen


def played(recording: Path, player: list[str]) -> bytes:
    """What asciinema writes to a terminal that plays this."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLS, 0, 0))
    words = ["setsid", "--ctty", "--wait", *player, "play", "--speed", "1000", str(recording)]
    with subprocess.Popen(words, stdin=its, stdout=its, stderr=its) as playing:
        os.close(its)
        shown = b""
        try:
            while piece := os.read(ours, 65_536):
                shown += piece
        except OSError:  # the player has closed the terminal
            pass
        os.close(ours)
    assert playing.returncode == 0, shown
    return shown


@pytest.mark.parametrize(
    ("format_", "player"), [("cast2", [PLAYER_2]), pytest.param("cast", [PLAYER_3, "-q"], marks=needs_asciinema_3)]
)
def test_a_recording_of_a_coloured_terminal_plays_and_ends_on_its_screen(
    standing: Cluster, tmp_path: Path, format_: str, player: list[str]
) -> None:
    job = submitted(standing, "--pty", "--terminal", f"{COLS}x{ROWS}", "--", "sh", "-c", COLOURED)
    assert standing.airunner("wait", job).returncode == 0
    assert standing.airunner("export", job, "--format", format_, "-o", str(tmp_path / "cast")).returncode == 0
    shown = screen_of(played(tmp_path / "cast", player))
    expected = screen_of(standing.airunner("export", job, "--format", "raw").stdout)
    assert shown.display == expected.display
    assert {y: dict(line) for y, line in shown.buffer.items() if line} == {
        y: dict(line) for y, line in expected.buffer.items() if line
    }
    assert (shown.cursor.x, shown.cursor.y) == (expected.cursor.x, expected.cursor.y)
    text = standing.airunner("export", job, "--format", "text").stdout.decode().splitlines()
    assert text[-ROWS:] == [line.rstrip() for line in expected.display]
