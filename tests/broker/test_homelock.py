"""The lock of a broker's home."""

from __future__ import annotations

from pathlib import Path

import pytest

from airunner.broker.homelock import locked_home
from airunner.protocol.errors import OperatorError


def test_a_home_has_one_broker_and_is_free_again_after_it(tmp_path: Path):
    for _ in range(2):
        with (
            locked_home(tmp_path / "broker"),
            pytest.raises(OperatorError, match="a broker already runs in "),
            locked_home(tmp_path / "broker"),
        ):
            pytest.fail("two brokers run in one home")
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match="set AIRUNNER_HOME"), locked_home(tmp_path / "file" / "broker"):
        pytest.fail("a file is no folder")
