"""The pages keep up with the code; tests/test_tidy.py holds that they keep up with each other."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = runpy.run_path(str(ROOT / "scripts" / "docs.py"))


@pytest.mark.parametrize("piece", DOCS["PIECES"], ids=lambda piece: piece.name)
def test_what_is_written_from_the_code_is_up_to_date(piece: Any) -> None:
    page = (ROOT / piece.page).read_text()
    assert piece.written(page) == page, "run `make docs`"
