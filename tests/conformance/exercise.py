"""The laws that every store keeps: each public function of the chapters, called with a driver of an empty store."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isfunction
from typing import Final

from tests.conformance import (
    laws_costs,
    laws_jobs,
    laws_listing,
    laws_log,
    laws_quotas,
    laws_retention,
    laws_room,
    laws_scopes,
    laws_secrets,
    laws_stdin,
)
from tests.conformance.driving import Driver

CHAPTERS: Final = (
    laws_jobs,
    laws_log,
    laws_listing,
    laws_retention,
    laws_quotas,
    laws_secrets,
    laws_stdin,
    laws_scopes,
    laws_room,
    laws_costs,
)
LAWS: Final[dict[str, Callable[[Driver], None]]] = {
    name: law
    for chapter in CHAPTERS
    for name, law in vars(chapter).items()
    if isfunction(law) and law.__module__ == chapter.__name__ and not name.startswith("_")
}
