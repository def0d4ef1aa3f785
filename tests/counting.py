"""Counts of calls, of functions and of the system: the cost of a piece of code that is the same on every machine."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None and "CI" not in os.environ,
    reason="strace is not installed, so system calls cannot be counted: install Debian's strace",
)


def called(_frame: FrameType, event: str, _function: Any) -> str:
    """The kind of call: of a function in Python or in C."""
    return event


class counted_calls:  # noqa: N801 - a context manager, and not a generator, whose own calls would be counted
    """Count the calls of functions, by what `name` returns for each; None: it is not counted.

    The garbage collector is off meanwhile: its callbacks, such as those of hypothesis, would be counted too.
    """

    def __init__(self, name: Callable[[FrameType, str, Any], str | None] = called) -> None:
        self._name = name
        self._calls: Counter[str] = Counter()
        self._collects = gc.isenabled()

    def __enter__(self) -> Counter[str]:
        gc.disable()
        sys.setprofile(self._count)
        return self._calls

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        if self._collects:
            gc.enable()

    def _count(self, frame: FrameType, event: str, function: Any) -> None:
        if event in ("call", "c_call") and (key := self._name(frame, event, function)) is not None:
            self._calls[key] += 1
