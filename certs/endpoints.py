"""Where brokers are: the words in which an operator names them. Agents and clients read the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from airunner.protocol.errors import OperatorError

DEFAULT_BROKER: Final = "tcp://127.0.0.1:7070"
BROKER_VARIABLE: Final = "AIRUNNER_BROKER"
ENDPOINTS_MAX: Final = 64  # tried in turn; more than that is a mistake


def endpoints_of(broker: str | Sequence[str] | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The endpoints in `broker`, else in `AIRUNNER_BROKER`, else the default; commas and spaces part them.

    Raises `OperatorError` when none or too many are named.
    """
    given = (broker,) if isinstance(broker, str) else broker
    words = given or (environ.get(BROKER_VARIABLE, "").strip() or DEFAULT_BROKER,)
    endpoints = tuple(endpoint for word in words for endpoint in word.replace(",", " ").split())
    if not 1 <= len(endpoints) <= ENDPOINTS_MAX:
        raise OperatorError(f"name 1 to {ENDPOINTS_MAX} brokers, such as {DEFAULT_BROKER}, not {len(endpoints)}")
    return endpoints
