"""`make docs`: draws the diagrams in docs/ from the tables in the code, between their markers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from airunner.protocol.states import mermaid

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "ARCHITECTURE.md"
BEGIN: Final = "<!-- states: drawn by `make docs` -->\n"
END: Final = "<!-- end of states -->\n"


def drawn(page: str) -> str:
    """`page` with the diagram as the code has it now."""
    assert BEGIN in page, "the page has lost the mark where the diagram stands"
    assert END in page, "the page has lost the mark where the diagram ends"
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}```mermaid\n{mermaid()}\n```\n{END}{after}"


def main() -> int:
    """Write the page."""
    PAGE.write_text(drawn(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
