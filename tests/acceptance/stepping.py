"""airunner under libfaketime: `python -m tests.acceptance.stepping WORDS` is `airunner WORDS`, with sleeps that work.

libfaketime takes the absolute instant of a monotonic clock, to which `time.sleep` waits, for one of the clock that it
sets, and fails. So this process sleeps by poll(2).
"""

from __future__ import annotations

import select
import time
from typing import Final

from airunner.__main__ import main

MODULE: Final = __name__ if __name__ != "__main__" else "tests.acceptance.stepping"


def sleep(seconds: float) -> None:
    """Sleep as `time.sleep` does."""
    select.poll().poll(seconds * 1_000)


if __name__ == "__main__":
    time.sleep = sleep
    main()
