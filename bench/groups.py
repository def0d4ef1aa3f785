"""Groups of the benchmark, in the order in which they are measured and printed."""

from __future__ import annotations

from typing import Final

from bench import (
    artifacts,
    brokers,
    cache,
    cancel,
    checkout,
    cli,
    client,
    commands,
    console,
    flood,
    growth,
    latency,
    many,
    queue,
    scale,
    search,
    store,
    tree,
)
from bench.group import Group

GROUPS: Final[tuple[Group, ...]] = (
    queue.GROUP,
    latency.GROUP,
    commands.GROUP,
    console.GROUP,
    many.GROUP,
    client.GROUP,
    growth.GROUP,
    cancel.GROUP,
    cli.GROUP,
    flood.GROUP,
    checkout.GROUP,
    artifacts.GROUP,
    tree.GROUP,
    cache.GROUP,
    scale.GROUP,
    search.GROUP,
    brokers.GROUP,
    store.GROUP,
)
