"""airunner whose garbage is collected before it ends: `python -m tests.acceptance.collected WORDS`."""

from __future__ import annotations

import gc
import os
import sys

from airunner.__main__ import run

if __name__ == "__main__":
    code = run(sys.argv[1:])
    gc.collect()
    os._exit(code)
