"""What somebody who looks whether all is well has found, and how it is told."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from airunner.protocol.printable import one_line


class Verdict(StrEnum):
    """How bad it is."""

    GOOD = "ok"
    FAIR = "note"
    BAD = "problem"


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    what: str
    verdict: Verdict
    words: str


def shown(finding: Finding) -> str:
    """One line for people."""
    return one_line(f"{finding.verdict:<8}{finding.what + ':':<16}{finding.words}")
