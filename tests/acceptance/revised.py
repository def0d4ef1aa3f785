"""`python -m tests.acceptance.revised N …` is airunner as it is, or will be, when it speaks revision N of the protocol.

Revision 1 is from before there were others: its broker drops what does not begin with AR1, and its Pong says nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import airunner.protocol.frames as ours
from airunner.__main__ import main
from airunner.broker import gateway
from airunner.protocol.names import RequestId
from airunner.transport import channel

_answerable = ours.answerable


def speak(revision: int) -> None:
    """Speak it from now on, and serve it and the one before."""
    ours.REVISION = channel.REVISION = revision
    ours.SERVED = gateway.SERVED = (revision - 1, revision) if revision > 1 else (revision,)
    if revision == 1:
        gateway.answerable = _only_the_first


def _only_the_first(frames: Sequence[bytes]) -> tuple[RequestId, int] | None:
    return _answerable(frames) if frames[0] == b"AR1" else None


if __name__ == "__main__":
    speak(int(sys.argv.pop(1)))
    main()
