"""Refusals of a message in words: which field, what was read, what is expected."""

from __future__ import annotations

import pytest

from airunner.protocol import requests
from airunner.protocol.errors import BadRequest
from airunner.protocol.expiry import Expiry
from airunner.protocol.fields import JobSpec
from airunner.protocol.jobretry import RetryOn, RetryPolicy
from airunner.protocol.misfits import SHOWN_CHARS, misfit_in, shown, with_field_named
from airunner.protocol.names import JobId

MANY = RetryPolicy(limit=1, on=RetryOn(exit_codes=(1,) * 257))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (requests.GetJob(job_id=JobId("")), "job_id: expected text, and it is empty"),
        (requests.GetJob(job_id=JobId("x" * 65)), "job_id: expected at most 64 characters, not 65"),
        (requests.ListJobs(owner=""), "owner: expected text, and it is empty"),
        (
            requests.ListJobs(queue="a b"),
            "queue: expected 1 to 128 letters, digits and any of _.@:/+-",
        ),
        (
            requests.ListJobs(owner="\udcff"),
            "owner: bytes that are not UTF-8 text cannot be sent",
        ),
        (requests.ListJobs(metadata={"": "x"}), "metadata: a name: expected text, and it is empty"),
        (requests.ListJobs(metadata={f"n{n}": "" for n in range(9)}), "metadata: expected at most 8 names, not 9"),
        (requests.ListJobs(page_size=0), "page_size: expected a whole number from 1 to 100, not 0"),
        (
            requests.ReplayJobEvents(job_id=JobId("x"), from_sequence=0),
            "from_sequence: expected a whole number",
        ),
        (
            requests.ReplayJobEvents(job_id=JobId("x"), from_sequence=2**63),
            "from_sequence: expected a whole number from 1 to",
        ),
        (
            requests.EnqueueJob(jobs=(JobSpec(command="x", retry=MANY),)),
            "jobs: item 1: retry: on: exit_codes: exp",
        ),
        (requests.ListJobs(), "as the other side said"),
    ],
)
def test_a_refused_request_is_worded_by_the_field_that_does_not_fit(request_: requests.Request, message: str) -> None:
    assert with_field_named(BadRequest("as the other side said"), request_).message.startswith(message)


def test_what_is_missing_or_given_in_two_ways_is_refused() -> None:
    assert str(misfit_in(JobSpec, {})) == "command: this is missing"
    with pytest.raises(ValueError, match="expected either after_ms or at_ms"):
        Expiry(after_ms=1, at_ms=1)


def test_a_byte_that_is_no_text_is_shown_as_it_is_and_a_long_text_short() -> None:
    assert shown("caf\udce9") == r"'caf\xe9'"
    assert len(shown("x" * 100)) == SHOWN_CHARS
