"""Messages of the wire: what all requests and replies are, how a request names its reply, and the lease that it proves.

A message is one MessagePack map; `type` names its class. `requests` and `replies` have the messages themselves.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Generic, TypeVar, get_args

from msgspec import Struct

from airunner.protocol.names import JobName, Positive, Token


class Message(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Message on the wire; its tag is the name of its class."""


class LeaseRef(Struct, frozen=True, kw_only=True):
    """Lease reference: names one attempt, and proves with its token that the sender holds it."""

    job_id: JobName
    attempt: Positive
    task_token: Token


_Reply_co = TypeVar("_Reply_co", bound=Message, covariant=True)


class Asking(Message, Generic[_Reply_co], frozen=True, kw_only=True):
    """Request whose reply is a `_Reply_co`, or `Refused`."""


def reply_type(request: type[Asking[_Reply_co]]) -> type[_Reply_co]:
    """Return the class of the reply to requests of this class."""
    reply: type[_Reply_co] = _asked_for(request)
    return reply


@cache
def _asked_for(request: type[Asking[Any]]) -> Any:  # noqa: ANN401 - a class, whose type only the caller knows
    (base,) = vars(request)["__orig_bases__"]
    return get_args(base)[0]
