"""Checks of received objects (`airunner agent --fsck`): which faults of git's fsck are ignored. Pure.

Public hosts serve repositories whose history, often decades old, has faults in a commit's author line, date or file
modes. git reads all of them, and they harm nobody, so by default they are ignored, as they are by a clone without
checks. Faults through which a repository can attack its reader are never ignored unless nothing is checked: names such
as `.git` and `..`, a `.gitmodules` that is a link or has unsafe values, trees that are not sorted or name a file twice.

The faults: https://git-scm.com/docs/git-fsck#_fsck_messages
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

_HARMLESS: Final = (
    *("missingAuthor", "multipleAuthors", "badName", "missingNameBeforeEmail"),
    *("badEmail", "missingEmail", "missingSpaceBeforeEmail"),
    *("badDate", "badDateOverflow", "missingSpaceBeforeDate", "zeroPaddedDate", "badTimezone"),
    *("nulInCommit", "nullSha1", "zeroPaddedFilemode"),
)  # git warns of a name that it does not know; faults that git itself ignores by default are not listed


class Fsck(StrEnum):
    """Check of received objects: for every fault, for all but harmless ones, or none."""

    STRICT = "strict"
    LENIENT = "lenient"
    OFF = "off"

    @property
    def settings(self) -> tuple[str, ...]:
        """Settings of git for this check."""
        checked = f"transfer.fsckObjects={'false' if self is Fsck.OFF else 'true'}"
        ignored = _HARMLESS if self is Fsck.LENIENT else ()
        return (checked, *(f"fetch.fsck.{fault}=ignore" for fault in ignored))
