"""The laws of sealed secrets that every Store keeps."""

from __future__ import annotations

from typing import Final

from airunner.protocol.coding import encode
from airunner.protocol.fields import JobSpec
from airunner.protocol.frames import BODY_BYTES_MAX
from airunner.protocol.replies import JobsLeased, SecretRemoved, SecretSet, SecretsListed, SecretSummary
from airunner.protocol.requests import (
    BOX_BYTES_MAX,
    BOXES_BYTES_MAX,
    PAGE_SIZE_MAX,
    SLOTS_MAX,
    ListSecrets,
    RemoveSecret,
    SetSecret,
)
from tests.conformance.driving import START_MS, VISIBILITY_MS, Driver, release

ID: Final = b"0123456789abcdef"
LATER: Final = b"fedcba9876543210"
WANTING: Final = JobSpec(command="true", secrets=("A",), secret_files=("B",))


def _set(driver: Driver, name: str, box: bytes, queue: str = "default", tenant: str = "home") -> None:
    driver.reply(SecretSet, SetSecret(queue=queue, name=name, box=box), tenant=tenant)


def _names(driver: Driver, tenant: str = "home", queue: str | None = None) -> list[tuple[str, str]]:
    listed = driver.reply(SecretsListed, ListSecrets(queue=queue), tenant=tenant)
    return [(secret.queue, secret.name) for secret in listed.secrets]


def a_lease_brings_the_boxes_of_what_its_job_names_and_no_others(driver: Driver) -> None:
    """A name that is not there is for the agent to miss; what a job brings itself is not looked up."""
    driver.enqueue(WANTING)
    assert driver.lease_one().sealed == {}
    for name in ("A", "B", "C"):
        _set(driver, name, name.encode())
    _set(driver, "A", b"another's", queue="other")
    driver.enqueue(WANTING)
    assert driver.lease_one().sealed == {"A": b"A", "B": b"B"}
    driver.enqueue(JobSpec(command="true", secrets=("A",), environment={"A": "its own"}), JobSpec(command="true"))
    assert [lease.sealed for lease in driver.lease(slots=2)] == [{}, {}]


def the_same_lease_asked_for_again_brings_them_again(driver: Driver) -> None:
    _set(driver, "A", b"box")
    driver.enqueue(WANTING)
    request = driver.dequeue()
    first = driver.reply(JobsLeased, request, request_id=ID)
    assert first.leases[0].sealed == {"A": b"box"}
    assert driver.reply(JobsLeased, request, request_id=ID) == first


def what_was_set_last_is_what_the_next_attempt_gets(driver: Driver) -> None:
    _set(driver, "A", b"old")
    driver.enqueue(WANTING)
    lease = driver.lease_one()
    _set(driver, "A", b"new")
    driver.reply(object, release(lease))
    lease = driver.lease_one()
    assert lease.sealed == {"A": b"new"}
    driver.reply(SecretRemoved, RemoveSecret(queue="default", name="A"))
    driver.pass_ms(VISIBILITY_MS)
    assert driver.lease_one().sealed == {}


def a_late_copy_undoes_no_newer_one(driver: Driver) -> None:
    old = SetSecret(queue="default", name="A", box=b"old")
    driver.reply(SecretSet, old, request_id=ID)
    _set(driver, "A", b"new")
    driver.reply(SecretSet, old, request_id=ID)
    driver.enqueue(WANTING)
    assert driver.lease_one().sealed == {"A": b"new"}
    driver.reply(SecretRemoved, RemoveSecret(queue="default", name="A"), request_id=LATER)
    _set(driver, "A", b"newer")
    driver.reply(SecretRemoved, RemoveSecret(queue="default", name="A"), request_id=LATER)
    assert _names(driver) == [("default", "A")]
    driver.refused("conflict", SetSecret(queue="default", name="A", box=b"other"), request_id=ID)


def they_are_listed_by_queue_and_name_and_never_shown(driver: Driver) -> None:
    for queue, name in (("b", "Z"), ("b", "A"), ("a", "M")):
        _set(driver, name, b"box of bytes", queue=queue)
    listed = driver.reply(SecretsListed, ListSecrets())
    assert listed == SecretsListed(
        secrets=tuple(
            SecretSummary(queue=queue, name=name, set_ms=START_MS)
            for queue, name in (("a", "M"), ("b", "A"), ("b", "Z"))
        )
    )
    assert b"box of bytes" not in encode(listed)
    assert _names(driver, queue="b") == [("b", "A"), ("b", "Z")]


def a_long_list_comes_in_pages(driver: Driver) -> None:
    names = [f"S{number:03}" for number in range(PAGE_SIZE_MAX + 3)]
    for name in names:
        _set(driver, name, b"box", queue=f"q{name[-1]}")
    seen: list[tuple[str, str]] = []
    page = driver.reply(SecretsListed, ListSecrets())
    seen += [(one.queue, one.name) for one in page.secrets]
    assert page.more
    page = driver.reply(SecretsListed, ListSecrets(after=seen[-1]))
    assert not page.more
    seen += [(one.queue, one.name) for one in page.secrets]
    assert seen == sorted((f"q{name[-1]}", name) for name in names)


def tenants_are_apart(driver: Driver) -> None:
    _set(driver, "A", b"theirs", tenant="other")
    assert _names(driver) == []
    driver.refused("not-found", RemoveSecret(queue="default", name="A"))
    driver.enqueue(WANTING)
    assert driver.lease_one().sealed == {}
    _set(driver, "A", b"ours")
    driver.reply(SecretRemoved, RemoveSecret(queue="default", name="A"))
    assert _names(driver) == []
    driver.enqueue(WANTING, tenant="other")
    (lease,) = driver.lease(tenant="other")
    assert lease.sealed == {"A": b"theirs"}


def a_queue_holds_so_much_that_a_full_grant_fits_a_frame(driver: Driver) -> None:
    _set(driver, "A", b"a" * BOX_BYTES_MAX)
    _set(driver, "B", b"b" * (BOXES_BYTES_MAX - BOX_BYTES_MAX))
    driver.refused("quota", SetSecret(queue="default", name="C", box=b"c"))
    _set(driver, "A", b"A" * BOX_BYTES_MAX)  # in its own place it fits
    _set(driver, "C", b"c", queue="other")
    _set(driver, "C", b"c" * BOX_BYTES_MAX, tenant="other")
    filling = JobSpec(command="x" * 64_000, secrets=("A", "B"))
    for _ in range(SLOTS_MAX):
        driver.enqueue(filling)
    granted = driver.reply(JobsLeased, driver.dequeue(slots=SLOTS_MAX))
    assert len(granted.leases) == SLOTS_MAX
    assert all(len(lease.sealed["A"]) == BOX_BYTES_MAX for lease in granted.leases)
    assert len(encode(granted)) <= BODY_BYTES_MAX
