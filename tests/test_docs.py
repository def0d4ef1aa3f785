"""The pages keep up with the code and with each other."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


DOCS = runpy.run_path(str(ROOT / "scripts" / "docs.py"))


@pytest.mark.parametrize("piece", DOCS["PIECES"], ids=lambda piece: piece.name)
def test_what_is_written_from_the_code_is_up_to_date(piece: Any) -> None:
    page = (ROOT / piece.page).read_text()
    assert piece.written(page) == page, "run `make docs`"


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    pages = [page.name for page in (ROOT / "docs" / "decisions").glob("0*.md")]
    assert pages
    assert [name for name in pages if f"({name})" not in index] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []
