"""Whose fault it is that a job cannot be run: the machine's errors are no job's, and a job's are no machine's."""

from __future__ import annotations

import errno
from itertools import product

import pytest

from airunner.agent.checkout.git import scarce_in
from airunner.agent.launcher.refusal import MachineRefused, Scarce, counts, refusal_in, scarce_at_launch

MACHINES = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
JOBS = (errno.E2BIG, errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP, errno.ETXTBSY, 0)


@pytest.mark.parametrize("number", MACHINES, ids=errno.errorcode.get)
def test_what_a_machine_is_out_of_is_no_fault_of_the_command(number: int) -> None:
    assert scarce_at_launch(number) is not None


@pytest.mark.parametrize("number", JOBS)
def test_what_is_wrong_with_a_command_is_no_fault_of_the_machine(number: int) -> None:
    assert scarce_at_launch(number) is None


def test_giving_back_counts_once_the_command_runs_or_the_machine_shows_nothing() -> None:
    for guessed, begun, able in product([False, True], repeat=3):
        refusal = MachineRefused(Scarce.DISK, "full", guessed=guessed)
        assert counts(refusal, begun=begun, able=able) is (begun or (guessed and able))


def test_a_refusal_is_found_in_what_task_groups_make_of_it() -> None:
    refusal = MachineRefused(Scarce.DISK, "full")
    assert refusal_in(BaseExceptionGroup("", [ExceptionGroup("", [ValueError(), refusal])])) is refusal
    assert refusal_in(ExceptionGroup("", [ValueError()])) is None
    found = refusal_in(OSError(errno.EMFILE, "Too many open files", "/x"))
    assert found is not None
    assert found.scarce is Scarce.DESCRIPTORS
    assert refusal_in(FileNotFoundError(errno.ENOENT, "No such file")) is None


@pytest.mark.parametrize(
    ("line", "scarce"),
    [
        ("fatal: write error: No space left on device", Scarce.DISK),
        ("error: unable to write file large", Scarce.DISK),
        ("error: cannot fork() for git-upload-pack '/r': Resource temporarily unavailable", Scarce.PROCESSES),
        ("fatal: unable to create thread: Resource temporarily unavailable", Scarce.PROCESSES),
        ('error: open("x"): Too many open files', Scarce.DESCRIPTORS),
        ("remote: fatal: write error: No space left on device", None),
        ("fatal: repository 'https://example.org/x.git/' not found", None),
        ("error: unable to create file a/b: File name too long", None),
    ],
)  # fmt: skip
def test_gits_words_tell_of_this_machine_and_not_of_another(line: str, scarce: Scarce | None) -> None:
    assert scarce_in(["Cloning", line]) is scarce
