"""What the words of `airunner submit` ask for."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from airunner.client.commands import split_operands, words_behind_dashes
from airunner.client.request import SubmitFlags, fields_of
from airunner.client.requestid import request_id_of
from airunner.protocol.errors import OperatorError


@pytest.mark.parametrize(
    ("argv", "operands", "repository", "words"),
    [
        (["submit", "--", "sh", "-c", "x"], ["sh", "-c", "x"], [], ["sh", "-c", "x"]),
        (["submit", "URL", "--", "make"], ["URL", "make"], ["URL"], ["make"]),
        (["submit", "URL"], ["URL"], ["URL"], None),
        (["submit", "--", "a", "--", "b"], ["a", "--", "b"], [], ["a", "--", "b"]),
        (["submit", "URL", "--"], ["URL"], ["URL"], []),
    ],
)
def test_the_command_is_what_stands_behind_the_first_dashes(
    argv: list[str], operands: list[str], repository: list[str], words: list[str] | None
) -> None:
    assert split_operands(operands, words_behind_dashes(argv)) == (repository, words)


def test_a_flag_beats_the_file_and_variables_are_merged(tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("command: make\nargs: [all]\nqueue: slow\nenvironment: {A: '1', B: '2'}\n")
    fields = fields_of(SubmitFlags(config=config, queue="fast", env=["B=3", "C=x=y"], operands=["https://x"]))
    assert fields == {
        "command": "make",
        "args": ("all",),
        "queue": "fast",
        "environment": {"A": "1", "B": "3", "C": "x=y"},
        "repository": "https://x",
    }


def test_words_behind_dashes_beat_the_files_command_and_its_arguments(tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("command: make\nargs: [all]\n")
    assert fields_of(SubmitFlags(config=config, words=["true"])) == {"command": "true", "args": ()}


def test_a_folder_is_named_absolutely_and_a_url_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path)
    assert fields_of(SubmitFlags(operands=["project"], words=["x"]))["repository"] == str(tmp_path / "project")
    assert fields_of(SubmitFlags(operands=["git@host:x.git"], words=["x"]))["repository"] == "git@host:x.git"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (SubmitFlags(), "there is no command to run"),
        (SubmitFlags(words=[]), "there is no command to run"),
        (SubmitFlags(operands=["URL"]), "there is no command to run"),
        (SubmitFlags(operands=["URL", "make"]), "put -- before the command"),
        (SubmitFlags(words=["a"], command="b"), "not both"),
        (SubmitFlags(words=["a"], env=["NAME"]), "--env 'NAME': expected NAME=VALUE"),
        (SubmitFlags(words=["a"], metadata=["=x"]), "--metadata '=x': expected NAME=VALUE"),
    ],
)
def test_words_that_make_no_job_are_told(flags: SubmitFlags, told: str) -> None:
    with pytest.raises(OperatorError, match=told):
        fields_of(flags)


def test_a_request_id_is_a_uuid_or_the_hash_of_any_text() -> None:
    uuid = "0197a2b4-1111-7222-8333-444455556666"
    assert request_id_of(uuid) == UUID(uuid).bytes
    assert len(request_id_of("nightly")) == 16
    assert request_id_of("nightly") == request_id_of("nightly") != request_id_of("weekly")
    for refused in ("", str(UUID(int=0))):
        with pytest.raises(OperatorError):
            request_id_of(refused)
