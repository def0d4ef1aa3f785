"""Patience: how long a client or an agent waits for a broker that is silent. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from msgspec import Struct

NOTICE_S: Final = 2.0  # of silence, after which `Patience.notice` is called


class Patience(Struct, frozen=True):
    """Bounds, in seconds, of a broker's silence while a reply is owed; None: no bound.

    `notice` is called once for each silence that lasts `NOTICE_S`, with the endpoint and the seconds left. `doubt` is
    called with a message when handshakes fail repeatedly, a broker that was heard refuses us, or a broker serves only
    other revisions of the protocol. An agent sets `doubt`, and goes on waiting; without it, a refusal fails requests.
    """

    first_s: float | None = None  # until a broker was heard for the first time
    later_s: float | None = None  # from then on
    notice: Callable[[str, float | None], None] | None = None
    doubt: Callable[[str], None] | None = None

    def bound_s(self, *, heard: bool) -> float | None:
        """Return the bound in force; `heard`: a broker was heard before."""
        return self.later_s if heard else self.first_s

    def due_ms(self, since_ms: int, *, heard: bool, noticed: bool) -> float:
        """Return when a silence since `since_ms` is to be noticed or, if `noticed`, exceeds the bound; inf: never."""
        if not noticed and self.notice is not None:
            return since_ms + int(NOTICE_S * 1_000)
        bound_s = self.bound_s(heard=heard)
        return math.inf if bound_s is None else since_ms + int(bound_s * 1_000)


UNBOUNDED: Final = Patience()
