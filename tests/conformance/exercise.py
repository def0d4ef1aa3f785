"""The laws that every store keeps: each public function of the chapters, called with a driver of an empty store."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isfunction
from typing import Final

from tests.conformance import (
    laws_costs,
    laws_dependencies,
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
    laws_dependencies,
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
LARGE: Final = frozenset(
    {
        "a_large_log_goes_in_several_steps_and_its_job_at_once",
        "a_log_of_large_runs_goes_in_several_steps",
        "a_page_holds_so_many_small_runs_and_looks_through_so_many_that_are_left_out",
        "a_queue_holds_so_many_different_needs_and_no_more",
        "a_tenants_queues_hold_so_many_different_needs_together_and_no_more",
        "looking_through_many_for_nothing_costs_too",
        "nothing_that_may_wait_makes_a_lease_or_a_list_of_queues_costly",
        "so_many_jobs_wait_for_one_and_no_more",
        "very_many_old_jobs_go_in_steps_the_oldest_first",
        "very_many_requests_are_forgotten_in_steps",
    }
)
"""Laws about large amounts: they take long, and are kept by one broker of each engine of the product."""
