"""The heap: memory that a search, or a transfer of files, frees is used again without page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airunner.protocol.compression import BATCH_BYTES_MAX

ROUNDS = 50
FAULTS_SHARE = 20  # of the faults that there would be, one may remain
USE = f"""
import sys
from resource import RUSAGE_SELF, getrusage
from threading import Thread

from airunner.transport.heap import keep_freed_memory

segments, *kept_bytes = map(int, sys.argv[1:])

def use():
    for _ in range({ROUNDS}):
        [b"x" * {BATCH_BYTES_MAX} for _ in range(segments)]

def faults():
    before = getrusage(RUSAGE_SELF).ru_minflt
    thread = Thread(target=use)
    thread.start()
    thread.join()
    return getrusage(RUSAGE_SELF).ru_minflt - before

keep_freed_memory(*kept_bytes)
faults()
print(faults())
"""


@pytest.mark.parametrize(
    ("segments", "kept_bytes"), [(8, ()), (32, (33_554_432,))], ids=["of a search", "of a transfer's windows"]
)
def test_freed_memory_is_used_again_without_page_faults(segments: int, kept_bytes: tuple[int, ...]) -> None:
    arguments = [str(number) for number in (segments, *kept_bytes)]
    ran = subprocess.run([sys.executable, "-c", USE, *arguments], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < ROUNDS * segments * BATCH_BYTES_MAX // 4_096 // FAULTS_SHARE
