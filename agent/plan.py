"""What an agent is to do, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from airunner.agent.output.batching import FlushPlan


class Plan(Struct, frozen=True):
    """One agent: `slots` jobs at once from `queues`, in order of preference. `home` is its own folder."""

    name: str
    slots: int
    queues: tuple[str, ...]
    visibility_ms: int
    home: Path
    version: str = ""  # of this software
    tags: Mapping[str, str] = MappingProxyType({})  # what this agent has, for jobs that require it
    log_bytes_max: int = 1 << 30  # of one attempt's output
    spool_bytes_max: int = 10 << 30  # of all spools together
    flush: FlushPlan = FlushPlan()  # when output goes out
    jobs_max: int | None = None  # that each slot runs before it ends; None: there is no end
    idle_s_max: float | None = None  # without a job, then the agent ends; None: it waits for ever
