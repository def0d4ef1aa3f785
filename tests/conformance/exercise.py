"""The law every Store must pass: call it with anything that makes an empty one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Final

from airunner.broker.store.batch import Store
from tests.conformance import (
    laws_costs,
    laws_endings,
    laws_leases,
    laws_listing,
    laws_log,
    laws_queues,
    laws_quotas,
    laws_retention,
    laws_retries,
    laws_room,
    laws_scopes,
    laws_secrets,
    laws_tenants,
)
from tests.conformance.driving import Driver

CHAPTERS: Final = (
    laws_leases,
    laws_endings,
    laws_retries,
    laws_queues,
    laws_log,
    laws_listing,
    laws_retention,
    laws_quotas,
    laws_secrets,
    laws_tenants,
    laws_scopes,
    laws_room,
    laws_costs,
)
LAWS: Final = {law.__name__: law for chapter in CHAPTERS for law in chapter.LAWS}


def exercise_store(make: Callable[[], Store]) -> None:
    """Hold the stores that `make` makes to every law, each law on an empty one."""
    for law in LAWS.values():
        with closing(make()) as store:
            law(Driver(store))
