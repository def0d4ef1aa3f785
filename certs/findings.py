"""Results of a health check, and how they are printed."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from airunner.protocol.printable import one_line


class Severity(StrEnum):
    """Severity of a finding."""

    GOOD = "ok"
    FAIR = "note"
    BAD = "problem"


class Finding(Struct, frozen=True):
    """Result of one check: what was checked, how bad it is, and the explanation."""

    check: str
    severity: Severity
    message: str


def shown(finding: Finding) -> str:
    """Format a finding as one line of text."""
    return one_line(f"{finding.severity:<8}{finding.check + ':':<16}{finding.message}")
