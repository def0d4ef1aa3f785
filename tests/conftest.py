"""What holds for every test, however pytest itself was started."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings
from hypothesis import strategies as st

settings.register_profile("untimed", deadline=None)  # a busy machine fails no test
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """Make hypothesis's table of all characters: in a new clone this takes seconds, which no test has to spare."""
    st.text().validate()


@pytest.fixture(scope="session", autouse=True)
def signals_that_children_hear() -> None:
    """Start processes with default signals: an ignored signal is inherited, one with a handler is not.

    A shell's background job ignores SIGINT, and what nohup starts ignores SIGHUP.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
