"""The heap: memory that a search, or a transfer of files, frees is used again without page faults."""

from __future__ import annotations

import subprocess
import sys

from airunner.protocol.compression import BATCH_BYTES_MAX

ROUNDS, SEGMENTS = 100, 8
FAULTS_MAX = ROUNDS * SEGMENTS * BATCH_BYTES_MAX // 4_096 // 20  # of those that there would be
USE = f"""
from resource import RUSAGE_SELF, getrusage
from threading import Thread

from airunner.transport.heap import keep_freed_memory

def use():
    for _ in range({ROUNDS}):
        [b"x" * {BATCH_BYTES_MAX} for _ in range({SEGMENTS})]

def faults():
    before = getrusage(RUSAGE_SELF).ru_minflt
    thread = Thread(target=use)
    thread.start()
    thread.join()
    return getrusage(RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
faults()
print(faults())
"""


def test_freed_memory_is_used_again_without_page_faults() -> None:
    ran = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < FAULTS_MAX
