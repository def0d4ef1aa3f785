"""The pages keep up with the code; tests/test_tidy.py holds that they keep up with each other."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import recording

from airunner.broker.counts import COUNTED
from bench.groups import GROUPS

ROOT = Path(__file__).resolve().parents[1]
DOCS = runpy.run_path(str(ROOT / "scripts" / "docs.py"))


def _marked(piece: Any) -> Any:
    """Leave the drawing of the packages, which reads all modules, without coverage."""
    return pytest.param(piece, marks=pytest.mark.unmeasured) if piece.name == "packages" else piece


@pytest.mark.parametrize("piece", [*map(_marked, DOCS["PIECES"])], ids=lambda piece: piece.name)
def test_what_is_written_from_the_code_is_up_to_date(piece: Any) -> None:
    page = (ROOT / piece.page).read_text()
    assert piece.written(page) == page, "run `make docs`"


def test_the_recording_is_that_of_its_script() -> None:
    assert recording.IMAGE.read_text().endswith(recording.mark()), "run `make docs`"


def test_counters_and_groups_of_the_benchmark_that_are_named_exist() -> None:
    page = (ROOT / "docs" / "PERFORMANCE.md").read_text()
    named = set(re.findall(r"airunner_(\w+)_total", page))
    assert named
    assert named <= COUNTED.keys()
    assert set(re.findall(r"ONLY=(\w+)", page)) <= {group.name for group in GROUPS}
    (not_in_table,) = re.findall(r"Groups that only `ONLY` measures: (.+)\.", page)
    assert set(re.findall(r"\w+", not_in_table)) == {group.name for group in GROUPS if not group.table}


def test_targets_of_make_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        (page.name, target)
        for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
        for target in re.findall(r"`make ([a-z-]+)", page.read_text())
    }
    assert [(page, target) for page, target in sorted(named) if target not in targets] == []
    assert named


def test_each_statement_about_a_job_is_held_by_a_test() -> None:
    page = (ROOT / "docs" / "JOBS.md").read_text()
    tests = {
        name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    for statement in re.findall(r"^(?:-|\d\.) .*(?:\n  .*)*", page, re.MULTILINE):
        held = re.search(r"<!-- (test_\w+(?:, test_\w+)*) -->$", statement)
        assert held, f"no test holds: {statement}"
        assert not {*held[1].split(", ")} - tests, statement


def test_errors_in_the_troubleshooting_page_are_those_of_the_code() -> None:
    said = set[str]()
    for part in ("agent", "airunner", "broker", "certs", "client", "protocol", "transport"):
        for module in (ROOT / part).rglob("*.py"):
            nodes = ast.walk(ast.parse(module.read_text()))
            said |= {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
    lowered = "\0".join(said).lower()
    errors = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(errors) > 20
    assert [
        error for error in errors if any(words not in lowered for words in error.lower().strip("… ").split("…"))
    ] == []
