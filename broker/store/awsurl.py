"""URLs of stores on AWS: the table, the region, and which queues and event bus the broker uses beside it.

```
aws:TABLE[?NAME=VALUE&NAME=VALUE…]

region       region of the table, the queues and the bus; otherwise AWS's own settings name it
endpoint     endpoint of all services, for an emulator; otherwise AWS's
sqs          endpoint of SQS, if it is not `endpoint`; `none`: the broker uses no queues
events       endpoint of EventBridge, if it is not `endpoint`
bus          name or ARN of the event bus that gets the lifecycle events; without it they are not kept for one
bells        name of the queue of bells; otherwise TABLE-bells
submissions  name of the queue that schedules submit jobs to, otherwise TABLE-submissions; `none`: there is none
submitters   tenants whose jobs may be submitted there, separated by commas; otherwise `default` alone
```

A URL has no password: credentials are AWS's own settings (a role, a profile, environment variables).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from airunner.certs.principal import DEFAULT_TENANT
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import NAME_EXPECTED, fits_name

AWS_URL: Final = "aws:"
NONE: Final = "none"  # value of `sqs` or `submissions`: do without
BELLS: Final = "-bells"
SUBMISSIONS: Final = "-submissions"
SUBMITTERS_MAX: Final = 64  # tenants that schedules may submit jobs for
NAMES: Final = ("region", "endpoint", "sqs", "events", "bus", "bells", "submissions", "submitters")
_TABLE: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}")  # as DynamoDB has it
_QUEUE: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")  # as SQS has it: no dots
_BUS: Final = re.compile(
    r"[A-Za-z0-9_./-]{1,256}|arn:[a-z0-9-]+:events:[a-z0-9-]+:\d{12}:event-bus/[A-Za-z0-9_./-]{1,256}"
)
_REGION: Final = re.compile(r"[a-z0-9-]{1,64}")


class AwsUrl(Struct, frozen=True, kw_only=True):
    """URL of a store on AWS, parsed. `bells` and `submissions` are "": the broker does without them."""

    table: str
    region: str | None = None
    endpoint: str | None = None
    sqs: str | None = None
    events: str | None = None
    bus: str | None = None
    bells: str = ""
    submissions: str = ""
    submitters: frozenset[str] = frozenset({DEFAULT_TENANT})

    @classmethod
    def parse(cls, url: str) -> AwsUrl:
        """Parse a URL. Raises `OperatorError`, whose line says what to write."""
        table, _, query = url.removeprefix(AWS_URL).partition("?")
        if not is_aws(url) or not _TABLE.fullmatch(table):
            raise OperatorError(
                f"--store {url!r} names no table: write aws:TABLE, with 3 to 255 letters, digits or _.- in TABLE"
            )
        given = _parameters(query)
        queues = given.get("sqs") != NONE
        bells = _queue(given, "bells", table + BELLS) if queues else ""
        submissions = _queue(given, "submissions", table + SUBMISSIONS) if queues else ""
        return cls(
            table=table,
            region=_matching(given, "region", _REGION, "a region such as eu-central-1"),
            endpoint=_endpoint(given, "endpoint"),
            sqs=_endpoint(given, "sqs") if queues else None,
            events=_endpoint(given, "events"),
            bus=_matching(given, "bus", _BUS, "the name or the ARN of an event bus"),
            bells=bells,
            submissions=submissions,
            submitters=_submitters(given),
        )

    def endpoint_of(self, service: str) -> str | None:
        """Return the endpoint of a service of AWS by boto3's name for it; None: AWS's own."""
        return {"sqs": self.sqs, "events": self.events}.get(service) or self.endpoint


def is_aws(url: str) -> bool:
    """Check whether a --store names a table on AWS."""
    return url.startswith(AWS_URL)


def _parameters(query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in NAMES:
            raise OperatorError(f"--store has no parameter {name!r}: aws:TABLE takes {', '.join(NAMES)}")
        if name in given:
            raise OperatorError(f"--store has {name} twice: leave one out")
        given[name] = value
    return given


def _matching(given: dict[str, str], name: str, pattern: re.Pattern[str], expected: str) -> str | None:
    value = given.get(name)
    if value is not None and not pattern.fullmatch(value):
        raise OperatorError(f"--store has {name}={value}: expected {expected}")
    return value


def _endpoint(given: dict[str, str], name: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None
        _ = parts.port  # raises `ValueError`
    except ValueError:
        sound = False
    if not sound:
        raise OperatorError(f"--store has no URL as {name}: write {name}=http://HOST:PORT, without credentials")
    return value


def _queue(given: dict[str, str], name: str, default: str) -> str:
    value = given.get(name, default)
    if value == NONE and name == "submissions":
        return ""
    if not _QUEUE.fullmatch(value):
        raise OperatorError(
            f"--store: {value!r} is not the name of a queue of SQS: write {name}=NAME, with 1 to 80 letters, digits, "
            "- or _, or sqs=none"
        )
    return value


def _submitters(given: dict[str, str]) -> frozenset[str]:
    names = given.get("submitters", DEFAULT_TENANT).split(",")
    for name in names:
        if not fits_name(name):
            raise OperatorError(
                f"--store: submitters has {name!r}, which is not a tenant's name: expected {NAME_EXPECTED}"
            )
    if len(names) > SUBMITTERS_MAX:
        raise OperatorError(f"--store: submitters has {len(names)} tenants: name {SUBMITTERS_MAX} at most")
    return frozenset(names)
