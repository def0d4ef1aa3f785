"""The oracle: it finds nothing in a good history, and each of its laws is red on a bad one."""

from __future__ import annotations

import pytest

from tests.simulation.bad_histories import BAD, two_processes_overlap
from tests.simulation.good_histories import GOOD, Telling, a_job_runs, an_agent_is_lost
from tests.simulation.oracle import LAWS, check
from tests.simulation.tale import Tale


def tell(telling: Telling) -> Tale:
    tale = Tale()
    telling(tale)
    return tale


@pytest.mark.parametrize("telling", GOOD, ids=lambda telling: telling.__name__)
def test_a_good_history_breaks_no_law(telling: Telling):
    assert check(tell(telling).told()) == []


@pytest.mark.parametrize(("law", "telling"), [(law, telling) for law, many in BAD.items() for telling in many])
def test_a_bad_history_breaks_the_law(law: str, telling: Telling):
    assert law in {violation.law for violation in check(tell(telling).told())}


def test_every_law_is_shown_to_be_broken():
    assert list(BAD) == list(LAWS)


def test_a_law_says_what_it_holds_to():
    assert all(law.__doc__ and law.__doc__.strip().endswith(".") for law in LAWS.values())


def test_a_violation_is_one_line():
    for violation in check(tell(two_processes_overlap).told()):
        assert str(violation).startswith(violation.law)
        assert "\n" not in str(violation)


def test_the_same_history_has_the_same_digest():
    one, same, other = (tell(telling).told().digest() for telling in (a_job_runs, a_job_runs, an_agent_is_lost))
    assert one == same != other
