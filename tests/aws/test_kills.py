"""dynoxide and brokers are killed while brokers, agents and users work; `make aws-kills` does it more often."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.chaos_processes import breaking
from tests.aws.serving import require

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(300)]


def test_kills_of_the_table_and_of_brokers_lose_and_double_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    require("dynoxide")
    monkeypatch.setenv("PYTHONPATH", "scripts")
    with breaking("tests.aws.kills", tmp_path, "--kills", "4") as run:
        said, _ = run.communicate()
    assert run.returncode == 0, said
