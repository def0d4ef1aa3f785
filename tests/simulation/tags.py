"""What the agents of the simulated world have: all but the first a tag, which some jobs require."""

from __future__ import annotations

from typing import Final

WITHOUT: Final = "agent-0"
LINUX: Final = {"os": "linux"}


def tags_of(agent: str) -> dict[str, str]:
    return {} if agent == WITHOUT else LINUX
