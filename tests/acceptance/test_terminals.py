"""What a person sees: prompts at once, terminals of the size asked for, screens to the byte."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.running import Cluster, start

pytestmark = pytest.mark.timeout(60)

PROMPT = b"Password: "
SCREEN_BYTES = 1_000_000


@pytest.mark.parametrize("mode", [(), ("--pty",)], ids=["pipe", "pty"])
def test_a_prompt_is_seen_while_the_command_waits(standing: Cluster, tmp_path: Path, mode: tuple[str, ...]) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    script = f'printf "{PROMPT.decode()}"; cat {go}'
    words = ("submit", *mode, "--", "sh", "-c", script)
    with start(standing.environ, *words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as monitor:
        assert monitor.stdout is not None
        seen = b""
        while seen != PROMPT:  # it comes only if it does not wait for the command, which waits for us
            seen += os.read(monitor.stdout.fileno(), len(PROMPT) - len(seen))
        go.write_text("swordfish")
        assert monitor.stdout.read() == b"swordfish"
        assert monitor.wait() == 0


def test_a_full_screen_is_replayed_to_the_byte(standing: Cluster, tmp_path: Path) -> None:
    drawn = tmp_path / "screen"
    chance = random.Random(7)
    places = [(chance.randint(1, 24), chance.randint(1, 80), chance.randint(0, 7)) for _ in range(50_000)]
    moves = [f"\x1b[{row};{column}H\x1b[3{colour}m" for row, column, colour in places]
    drawn.write_bytes(("\x1b[?1049h" + "█\r\n".join(moves)).encode()[:SCREEN_BYTES] + b"\x1b[?1049l")
    done = standing.airunner("submit", "--json", "--pty", "--", "sh", "-c", f"stty raw; cat {drawn}", timeout_s=50)
    log = [json.loads(line) for line in done.stdout.splitlines()[1:]]
    assert log[-1]["state"] == "COMPLETED"
    assert b"".join(written(event) for event in log if event["kind"] == "OUTPUT") == drawn.read_bytes()
    replayed = standing.airunner("monitor", "--json", log[0]["job_id"], timeout_s=50)
    assert [json.loads(line) for line in replayed.stdout.splitlines()] == log
    assert [(event["cols"], event["rows"]) for event in log if event["kind"] == "TERMINAL_RESIZE"] == [(80, 24)]


def written(event: dict[str, str]) -> bytes:
    return event["data"].encode() if event["encoding"] == "utf-8" else base64.b64decode(event["data"])
