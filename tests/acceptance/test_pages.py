"""Pages for newcomers are run as they stand, line by line, by a user who has nothing; what other pages name exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from airunner.commandline import make_app
from tests.acceptance.running import REPOSITORY, environment

SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"\bairunner ([a-z][^`|;&#\n]*)")
HEREDOC = re.compile(r"<<'(\w+)'\n")
ENDED = "@@ the line ended with"


def lines_of(block: str) -> Iterator[str]:
    """The lines of a block, each with the document that follows it."""
    lines = iter(block.splitlines(keepends=True))
    for line in lines:
        opened = HEREDOC.search(line)
        end = f"{opened[1]}\n" if opened else ""
        document = "".join(iter(lambda: next(lines), end)) if opened else ""
        yield f"{line}{document}{end}".removesuffix("\n")


@pytest.fixture
def user(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user with an empty home, whose PATH has this interpreter and no airunner of the home's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"HOME": str(tmp_path), "PATH": path, "AIRUNNER_LISTEN": "tcp://127.0.0.1:0"}
    environ = environment(tmp_path / ".airunner", own)
    del environ["PYTHONPATH"]  # what is installed is tested
    try:
        yield environ
    finally:
        subprocess.run(["airunner", "down"], env=environ, check=False)


@pytest.mark.timeout(240)  # README's first line installs airunner with all that it needs
@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_every_line_of_a_newcomers_page_does_what_its_comment_says(
    page: str, user: dict[str, str], tmp_path: Path
) -> None:
    text = (REPOSITORY / page).read_text()
    checkout = tmp_path / "checkout"
    made = shutil.ignore_patterns(".venv", "build", ".*_cache", ".hypothesis", ".coverage*", "__pycache__")
    shutil.copytree(REPOSITORY, checkout, symlinks=True, ignore=made)
    lines = [line for block in SHELL.findall(text) for line in lines_of(block)]
    lines += [f"python - <<'END'\n{block}END" for block in PYTHON.findall(text)]
    script = tmp_path / "script"
    script.write_text("".join(f'{line}\necho "{ENDED} $?"\n' for line in lines))
    done = subprocess.run(["bash", script], env=user, cwd=checkout, capture_output=True, check=False)
    outputs = re.split(f"{ENDED} (\\d+)\n", done.stdout.decode())
    assert len(outputs) == 2 * len(lines) + 1
    for line, output, code in zip(lines, outputs[::2], outputs[1::2], strict=False):
        meant = re.search(r"exits with (\d+)", line)
        assert code == (meant[1] if meant else "0"), (line, output, done.stderr.decode())
        prints = re.search(r"# prints (\w+)", line)
        assert prints is None or prints[1] in output, line


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each command of `group` by its words, with its parser."""
    for name, command in group.commands.items():
        yield " ".join((*words, name)), command
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))


def test_commands_and_options_that_pages_name_exist() -> None:
    known = dict(commands(typer.main.get_command(make_app())))
    wrong, seen = [], 0
    pages = [REPOSITORY / "README.md", *REPOSITORY.glob("d*/**/*.md")]  # docs and deploy
    for page in (page for page in pages if page.parent.name != "decisions"):  # which say what was
        for said in COMMAND.findall(page.read_text()):
            words = said.partition(" -- ")[0].split()
            named = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0].rstrip(",.:)")
            if named not in known:
                continue
            seen += 1
            command = known[named]
            options = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
            for word in words:
                option = re.match(r"\[?(--?[a-z][a-z-]*)", word)
                if option and option[1] not in options | {"--help", "-h", "--debug"}:
                    wrong.append(f"{page.relative_to(REPOSITORY)}: airunner {named} has no {option[1]}")
    assert wrong == []
    assert seen > 100
