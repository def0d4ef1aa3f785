"""Errors, classified by whose fault they are.

- `PeerError`: the other side's request is not allowed or cannot be met. The error has a `code`, travels on the wire as
  `replies.Refused` and is raised at the other end as the same class.
- `OperatorError`: the user can fix it (a bad flag, a missing key, a broker that does not run). The command line prints
  its one-line message and exits with its `exit_code`.
- `AssertionError`: a bug of ours, which ends the process.

`AirunnerError` is the base class of all but the last; each error has a `code`, which programs compare.

The docstring of a subclass of `PeerError` is its default message, which others quote: without capital and full stop.
"""

from __future__ import annotations

from inspect import cleandoc
from typing import ClassVar, Final

# Exit codes of airunner's own, as of sysexits.h; a job's small numbers are never among them. README.md lists all.
EXIT_USAGE: Final = 64  # EX_USAGE
EXIT_WRONG_STATE: Final = 65  # EX_DATAERR
EXIT_NO_SUCH: Final = 66  # EX_NOINPUT: no such job or queue
EXIT_UNAVAILABLE: Final = 69  # EX_UNAVAILABLE
EXIT_BUG: Final = 70  # EX_SOFTWARE
EXIT_IO: Final = 74  # EX_IOERR: a file cannot be read or written, or a store is damaged
EXIT_NO_PERMISSION: Final = 77  # EX_NOPERM
EXIT_UNHEALTHY: Final = 78  # EX_CONFIG: a check of this machine has found a problem
EXIT_JOB_FAILED: Final = 125  # docker's: the job failed, and has no exit code of its own


_CODES: Final = {
    EXIT_USAGE: "usage",
    EXIT_WRONG_STATE: "wrong-state",
    EXIT_NO_SUCH: "no-such",
    EXIT_UNAVAILABLE: "unavailable",
    EXIT_IO: "io",
    EXIT_NO_PERMISSION: "no-permission",
    EXIT_UNHEALTHY: "unhealthy",
}
"""Codes of operator errors, by exit code."""


class AirunnerError(Exception):
    """Error of airunner, the base class of its errors; `code` is its kind, `exit_code` that of a command it ends."""

    code: str = "error"
    exit_code: int = EXIT_WRONG_STATE

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class OperatorError(AirunnerError):
    """Error that the operator can fix; the message says how."""

    def __init__(self, message: str, *, exit_code: int = EXIT_USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = _CODES.get(exit_code, AirunnerError.code)


class ClientNotOpen(AirunnerError, RuntimeError):
    """A client is used before its `with` block or after it."""

    code = "not-open"
    exit_code = EXIT_USAGE


class FieldError(ValueError):
    """Field whose value does not fit: the name of the field, the problem, and the part of the value, or None."""

    def __init__(self, field: str, problem: str, part: object = None) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem
        self.part = part


class PeerError(AirunnerError):
    """The other side's request cannot be met."""

    _by_code: ClassVar[dict[str, type[PeerError]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        assert cls.code not in PeerError._by_code, f"two errors share the code {cls.code}"
        PeerError._by_code[cls.code] = cls

    def __init__(
        self, message: str | None = None, *, expected_index: int | None = None, retry_ms: int | None = None
    ) -> None:
        doc = cleandoc(type(self).__doc__ or self.code).removesuffix(".")
        super().__init__(message or f"{doc[0].lower()}{doc[1:]}")
        self.expected_index = expected_index
        self.retry_ms = retry_ms  # pause before the same request may be sent again; None: not stated

    @staticmethod
    def from_wire(code: str, message: str, expected_index: int | None = None, retry_ms: int | None = None) -> PeerError:
        """Build the error for a code of the wire; a code from a newer peer becomes a plain `PeerError`."""
        return PeerError._by_code.get(code, PeerError)(message, expected_index=expected_index, retry_ms=retry_ms)

    @classmethod
    def codes(cls) -> dict[str, type[PeerError]]:
        """Return every error code of the wire and its class."""
        return dict(cls._by_code)


class BadRequest(PeerError):
    """The request is malformed: a field is missing, ill-typed or out of bounds."""

    code = "bad-request"
    exit_code = EXIT_USAGE
    misfit: FieldError | None = None  # the field and the problem, if they are known


class Unsupported(PeerError):
    """The peer speaks another revision of the protocol."""

    code = "unsupported"
    exit_code = EXIT_UNAVAILABLE


class Unauthenticated(PeerError):
    """The token is missing or not valid."""

    code = "unauthenticated"
    exit_code = EXIT_NO_PERMISSION


class Forbidden(PeerError):
    """The token lacks the role that this request needs."""

    code = "forbidden"
    exit_code = EXIT_NO_PERMISSION


class NotFound(PeerError):
    """There is no such job."""

    code = "not-found"
    exit_code = EXIT_NO_SUCH


class Conflict(PeerError):
    """The request id was used before with another body: use another request id."""

    code = "conflict"


class NotFinished(PeerError):
    """The job has not finished yet; only a finished job can be run again."""

    code = "not-finished"


class Draining(PeerError):
    """The queue is being drained and accepts no new jobs; `airunner resume` opens it."""

    code = "queue-draining"


class StaleToken(PeerError):
    """The attempt is over, or the task token is not that of the attempt."""

    code = "stale-token"


class IndexGap(PeerError):
    """Events are missing before this batch; `expected_index` is the first missing one."""

    code = "index-gap"


class IncompleteLog(PeerError):
    """The attempt cannot complete: only `expected_index` of its events are stored."""

    code = "incomplete-log"


class Busy(PeerError):
    """The broker is at its limit; send the same request again after a pause."""

    code = "busy"
    exit_code = EXIT_UNAVAILABLE


class Quota(PeerError):
    """The tenant's quota is used up."""

    code = "quota"
    exit_code = EXIT_UNAVAILABLE


class NoSpace(PeerError):
    """The broker's disk is full, or too full for new jobs; nothing was stored."""

    code = "no-space"
    exit_code = EXIT_UNAVAILABLE


class NoBlobs(PeerError):
    """The broker keeps no files of jobs: start each broker of its store with the same --blobs."""

    code = "no-blobs"
    exit_code = EXIT_UNAVAILABLE


class BadPattern(PeerError):
    """The pattern is not a regular expression of RE2, or one that would take too much memory."""

    code = "bad-pattern"
    exit_code = EXIT_USAGE


class CorruptLog(PeerError):
    """The broker's store is damaged where this request reads it: run `airunner store check` on the broker's machine."""

    code = "corrupt-log"
    exit_code = EXIT_IO


class Forged(PeerError):
    """The sealed payload was not made with this key."""

    code = "forged"
