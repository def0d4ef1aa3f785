"""The oracle: it finds nothing in a good history, and each of its laws is red on a bad one."""

from __future__ import annotations

import pytest

from tests.simulation.histories import BAD, GOOD, Telling, a_job_runs, an_agent_is_lost, two_processes_overlap
from tests.simulation.oracle import LAWS, check
from tests.simulation.tale import Tale


def tell(telling: Telling) -> Tale:
    tale = Tale()
    telling(tale)
    return tale


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_breaks_no_law(name: str):
    assert check(tell(GOOD[name]).told()) == []


@pytest.mark.parametrize(("law", "name"), [(law, name) for law, histories in BAD.items() for name in histories])
def test_a_bad_history_breaks_the_law(law: str, name: str):
    assert law in {violation.law for violation in check(tell(BAD[law][name]).told())}


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
