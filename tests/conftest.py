"""What holds for every test, however pytest itself was started."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings
from hypothesis import strategies as st

settings.register_profile("untimed", deadline=None)  # a busy machine fails no test
settings.load_profile("untimed")
st.text().validate()  # in a new clone this makes a table of all characters, for seconds that no test has to spare


@pytest.fixture(scope="session", autouse=True)
def signals_that_children_hear() -> None:
    """Start processes with default signals: an ignored signal is inherited, one with a handler is not.

    A shell's background job ignores SIGINT, and what nohup starts ignores SIGHUP.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
