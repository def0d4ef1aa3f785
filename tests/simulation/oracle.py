"""The oracle: judges a history, and knows nothing of how broker, agent and client are made.

What cannot be judged from the evidence is not judged: a violation is a violation. What a law says stands in
its docstring; what it looks at, in `evidence`.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import isfunction
from typing import Final

from tests.simulation import laws_dependencies, laws_fleet, laws_jobs, laws_leases, laws_log, laws_order
from tests.simulation.evidence import Evidence, Found, Violation
from tests.simulation.history import History

LAWS: Final[dict[str, Callable[[Evidence], Found]]] = {
    name: law
    for chapter in (laws_jobs, laws_leases, laws_order, laws_log, laws_dependencies, laws_fleet)
    for name, law in vars(chapter).items()
    if isfunction(law) and law.__annotations__.get("return") == "Found"
}


def check(history: History) -> list[Violation]:
    """Everything in `history` that is against a law."""
    evidence = Evidence(history)
    return [
        Violation(law=name, job_id=job_id, what=what) for name, law in LAWS.items() for job_id, what in law(evidence)
    ]
