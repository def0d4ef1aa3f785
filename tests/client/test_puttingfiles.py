"""Files that `artifact put` names: their paths below the checkout, and what is left out with a word."""

from __future__ import annotations

import os
import socket
from contextlib import chdir
from pathlib import Path

import pytest

from airunner.client.puttingfiles import named_files, put_files
from airunner.protocol.errors import OperatorError


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with something of each kind."""
    for name in ("dist/a", "dist/in/b", "dist/.hidden"):
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkout" / name).write_text("x")
    (tmp_path / "checkout/dist/empty").mkdir()
    (tmp_path / "checkout/dist/link").symlink_to("a")
    return tmp_path / "checkout"


def found(checkout: Path, *paths: str, called: str | None = None, where: str = ".") -> tuple[list[str], list[str]]:
    """Paths of what is named in a folder of the checkout, and what is left out."""
    left_out: list[str] = []
    with chdir(checkout / where):
        environ = {"AIRUNNER_WORKSPACE": str(checkout), "AIRUNNER_JOB_SOCKET": "socket"}
        return [named.file.path for named in named_files(paths, called, environ, left_out.append)], left_out


def test_a_folder_is_all_that_is_in_it_but_hidden_names(checkout: Path) -> None:
    dist = ["dist/a", "dist/empty/", "dist/in/b", "dist/link"]
    assert found(checkout, "dist") == (dist, [])
    assert found(checkout, ".", where="dist") == (dist, [])
    assert found(checkout, ".") == (dist, [])
    assert found(checkout, str(checkout / "dist/in"), "dist/.hidden") == (["dist/in/b", "dist/.hidden"], [])


def test_paths_are_those_below_the_checkout_from_wherever_they_are_named(checkout: Path, tmp_path: Path) -> None:
    assert found(checkout, "b", "../a", where="dist/in") == (["dist/in/b", "dist/a"], [])
    (tmp_path / "way").symlink_to(checkout)  # as an agent's home may be reached
    with chdir(checkout / "dist"):
        environ = {"AIRUNNER_WORKSPACE": str(tmp_path / "way"), "AIRUNNER_JOB_SOCKET": "socket"}
        assert [named.file.path for named in named_files(["a"], None, environ, print)] == ["dist/a"]


def test_a_name_stands_for_one_path(checkout: Path, tmp_path: Path) -> None:
    assert found(checkout, "dist/in", called="logs/all/") == (["logs/all/b"], [])
    assert found(checkout, str(tmp_path / "checkout/dist/a"), called="x") == (["x"], [])
    assert found(checkout, "-", called="in.txt") == (["in.txt"], [])


def test_what_cannot_be_kept_is_left_out_with_a_word(checkout: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound, chdir(checkout):
        bound.bind("dist/socket")
        Path("dist/out").symlink_to("/etc/passwd")
        Path(os.fsdecode(b"dist/\xff")).touch()
    names, left_out = found(checkout, "dist")
    assert names == ["dist/a", "dist/empty/", "dist/in/b", "dist/link"]
    assert [line.partition(": ")[2] for line in left_out] == [
        "it is a link out of the checkout",
        "it is no file",
        "its name is not UTF-8",
    ]


@pytest.mark.parametrize(
    ("paths", "called", "code", "word"),
    [
        (["missing"], None, 66, "missing: No such file"),
        (["dist", "missing"], None, 66, "missing: No such file"),
        (["/etc/passwd"], None, 64, "outside of the checkout"),
        (["dist", "dist/a"], "x", 64, "--as names one path"),
        (["dist/a"], "../x", 64, "--as ../x"),
        (["-"], None, 64, "--as NAME"),
    ],
)
def test_what_cannot_be_named_is_refused_before_anything_is_sent(
    checkout: Path, paths: list[str], called: str | None, code: int, word: str
) -> None:
    with pytest.raises(OperatorError, match=word) as refused:
        found(checkout, *paths, called=called)
    assert refused.value.exit_code == code


def test_outside_of_a_job_it_is_said_in_a_line(tmp_path: Path) -> None:
    for environ, word in (
        ({}, "this is no job"),
        ({"AIRUNNER_JOB_SOCKET": str(tmp_path / "socket")}, "does not listen"),
        ({"AIRUNNER_JOB_SOCKET": str(tmp_path / "gone/socket")}, "does not listen"),
    ):
        with pytest.raises(OperatorError, match=word):
            put_files(named_files([], None, environ, print), environ, print)
    with pytest.raises(OperatorError, match="this is no job"):  # and not that the path is outside of a checkout
        named_files([str(tmp_path)], None, {}, print)
