"""Needs: what a job requires of its agent, tags and knowledge alike."""

from __future__ import annotations

import pytest
from msgspec.structs import force_setattr, replace

from airunner.broker.store.needs import facts_of, is_tag, meets, needs_of
from airunner.protocol.fields import JobSpec
from airunner.protocol.musts import MUST_KNOW
from airunner.protocol.requests import DequeueJob
from tests.protocol.examples import REQUESTS

ASKING = REQUESTS["DequeueJob"]
assert isinstance(ASKING, DequeueJob)


def test_a_plain_job_needs_nothing() -> None:
    assert needs_of(JobSpec(command="make")) == ""
    assert meets(frozenset(), "")


@pytest.mark.parametrize("name", MUST_KNOW)
def test_each_field_that_must_be_known_is_a_need(name: str) -> None:
    job = JobSpec(command="make")
    force_setattr(job, name, ("any",))
    assert needs_of(job) == name, f"name {name} in the first line of `needs_of`"
    assert not meets(facts_of(replace(ASKING, knows=())), needs_of(job))
    assert meets(facts_of(replace(ASKING, knows=(name,))), needs_of(job))
    assert not is_tag(name)
