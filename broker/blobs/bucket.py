"""Bucket of S3, Google Cloud Storage or Azure: opened, and looked at once, when the broker starts.

What no repeat mends, such as a missing bucket or a wrong key, ends the start with a line that says what to do. A bucket
that does not answer is said, and the broker starts without it: requests about files are refused until it is back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from airunner.broker.blobs.breaker import Breaker
from airunner.broker.blobs.objects import StoredObjects
from airunner.protocol.errors import OperatorError
from airunner.protocol.printable import one_line

ANSWER_S: Final = 10.0  # for a request to a bucket; after it the sender is refused as `busy`, and repeats its request
RETRIES_MAX: Final = 2
LOOKUPS_MAX: Final = 16  # objects that are looked up at a time: one answer takes 5 to 50 ms, and a request has 1,024
START_ANSWER_S: Final = 3.0  # for the request when the broker starts, which waits for it
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_STATUS: Final = re.compile(
    r"status code: (?P<status>4\d\d)(?P<words>[^:\n]*)(?:.*?<Code>(?P<code>\w+)</Code>)?", re.DOTALL
)
_PASSING: Final = ("408", "429")  # statuses that mean: later
_ADVICE: Final = {
    "401": "check the credentials in the broker's environment",
    "403": "check the credentials in the broker's environment, and what they are allowed",
    "404": "make the bucket, or check its name",
}
_WORDS_MAX: Final = 200  # characters of a failure's words


def open_bucket(address: str, say: Callable[[str], None]) -> Breaker:
    """Open a bucket. Raises `OperatorError`: it cannot be used, and no repeat mends that."""
    try:
        _look(address, say)
        return Breaker(StoredObjects(_opened(address, ANSWER_S, RETRIES_MAX), lookups_max=LOOKUPS_MAX))
    except BaseError as error:
        raise OperatorError(f"--blobs {address!r} cannot be used: {_words(error)}") from error


def _opened(address: str, answer_s: float, retries: int) -> obstore.store.ObjectStore:
    answer = timedelta(seconds=answer_s)
    plain = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
    return from_url(
        address,
        client_options={"timeout": answer, "connect_timeout": answer, "allow_http": plain},
        retry_config={"max_retries": retries, "retry_timeout": answer},
    )


def _look(address: str, say: Callable[[str], None]) -> None:
    """Look at a bucket once. Raises `OperatorError`, `BaseError`."""
    store = _opened(address, START_ANSWER_S, 0)
    listed: Any = obstore  # its types are known to pyright in part
    try:
        listed.list_with_delimiter(store)
    except BaseError as error:
        refused = _STATUS.search(str(error))
        if refused is None or refused["status"] in _PASSING:
            say(f"--blobs {address!r} does not answer, and files of jobs wait for it: {_words(error)}")
            return
        code = refused["code"] or "without a reason"
        advice = _ADVICE.get(refused["status"], "check the address and the endpoint")
        raise OperatorError(f"--blobs {address!r} is refused ({refused['status']} {code}): {advice}") from error


def _words(error: BaseError) -> str:
    return one_line(str(error).partition("\n")[0][:_WORDS_MAX])
