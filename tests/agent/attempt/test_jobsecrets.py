"""Where the values of a job's secrets come from, and how it is given them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airunner.agent.attempt.jobsecrets import JobSecrets, SecretMissing, no_keys, secrets_of, write_files
from airunner.protocol.errors import Forged
from airunner.protocol.fields import JobSpec

WANTING = JobSpec(command="true", secrets=("A",), secret_files=("B",))
OFFERED = {"A": "offered", "B": "offered", "C": "offered"}
SEALED = {"A": b"box of A", "B": b"box of B"}


def opened(queue: str, name: str, box: bytes) -> bytes:
    assert (queue, box) == ("default", f"box of {name}".encode())
    return b"opened"


def forged(queue: str, name: str, box: bytes) -> bytes:
    raise Forged(f"{queue} {name} {box!r}")


@pytest.mark.parametrize(
    ("environment", "sealed", "value"),
    [({"A": "own", "B": "own"}, SEALED, "own"), ({}, SEALED, "opened"), ({}, {}, "offered")],
)
def test_the_jobs_own_is_stronger_than_a_sealed_one_and_that_than_the_agents(
    environment: dict[str, str], sealed: dict[str, bytes], value: str
) -> None:
    spec = JobSpec(command="true", secrets=("A",), secret_files=("B",), environment=environment)
    assert secrets_of(spec, OFFERED, sealed, opened) == JobSecrets({"A": value}, {"B": value.encode()})


def test_a_job_gets_what_it_names_and_nothing_else() -> None:
    assert secrets_of(JobSpec(command="true"), OFFERED, SEALED, opened) == JobSecrets()


def test_one_that_is_nowhere_is_told_with_what_to_do() -> None:
    with pytest.raises(SecretMissing, match="airunner secret set A --queue default"):
        secrets_of(WANTING, {}, {}, opened)


@pytest.mark.parametrize(
    ("open_box", "told"), [(forged, "set the secret again with"), (no_keys, "it has no key of queue default")]
)
def test_a_box_that_does_not_open_is_not_replaced_by_a_weaker_value(open_box: object, told: str) -> None:
    with pytest.raises(SecretMissing, match=told):
        secrets_of(WANTING, OFFERED, SEALED, open_box)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [b"with \0 in it", b"not UTF-8: \xff"])
def test_what_no_variable_can_have_a_file_can(value: bytes) -> None:
    assert secrets_of(JobSpec(command="true", secret_files=("A",)), {}, SEALED, lambda *_: value).files == {"A": value}
    with pytest.raises(SecretMissing, match="name it in secretFiles"):
        secrets_of(JobSpec(command="true", secrets=("A",)), {}, SEALED, lambda *_: value)


def test_one_cannot_be_both() -> None:
    with pytest.raises(ValueError, match="A is named in secrets too"):
        JobSpec(command="true", secrets=("A",), secret_files=("A",))


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        paths = write_files(JobSecrets(files={"A": b"one", "B": b"\0\xff"}), tmp_path / "secrets")
    finally:
        os.umask(before)
    assert {name: Path(path).read_bytes() for name, path in paths.items()} == {"A": b"one", "B": b"\0\xff"}
    assert {Path(path).stat().st_mode & 0o777 for path in paths.values()} == {0o600}
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_without_files_no_folder_is_made(tmp_path: Path) -> None:
    assert write_files(JobSecrets({"A": "value"}), tmp_path / "secrets") == {}
    assert not (tmp_path / "secrets").exists()
