"""Minting of ids and watch keys for new jobs: deciders draw no random numbers, so who receives a request does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from airunner.broker.lifecycle.commands import MintedJob
from airunner.protocol.names import JOB_ID_RANDOM_BYTES, TOKEN_BYTES, WatchKey, new_job_id

_MINTED_BYTES: Final = JOB_ID_RANDOM_BYTES + TOKEN_BYTES  # random bytes of a new job: its id and its watch key


def mint(count: int, random_bytes: Callable[[int], bytes]) -> tuple[MintedJob, ...]:
    """Make ids and watch keys. Ids of a request have two characters in common: so they are near in an index."""
    if not count:
        return ()
    drawn = random_bytes(count * _MINTED_BYTES)
    common = drawn[:1]
    minted = [  # a list: faster than a generator
        MintedJob(
            new_job_id(common + drawn[start + 1 : start + JOB_ID_RANDOM_BYTES]),
            WatchKey(drawn[start + JOB_ID_RANDOM_BYTES : start + _MINTED_BYTES]),
        )
        for start in range(0, len(drawn), _MINTED_BYTES)
    ]
    return tuple(minted)
