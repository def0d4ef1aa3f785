"""Errors of AWS in one line, with AWS's own code and what the operator has to do; and clients that raise them.

Errors come in two forms: a service has answered with a code (`ClientError`), or botocore has not got so far, for
example without credentials: then the name of its class is the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from airunner.broker.store.awsurl import AwsUrl
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError

WORDS_CHARS_MAX: Final = 300  # of an error, in one line
CONNECT_S: Final = 5.0  # to connect: a machine that is gone answers nothing
READ_S: Final = 10.0  # for an answer, beyond what a request of ours waits on purpose
_FOLLOW: Final = "give the machine a role, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_ACCOUNT: Final = "correct the credentials, or the region with ?region="
_MISSING: Final = "create it with deploy/aws, or correct its name or ?region="
REMEDIES: Final[Mapping[str, str]] = {
    "AccessDenied": "let the broker's role do this, as deploy/aws does",
    "AccessDeniedException": "let the broker's role do this, as deploy/aws does",
    "AWS.SimpleQueueService.NonExistentQueue": _MISSING,
    "ConnectTimeoutError": "mend the network, or correct endpoint= or region=",
    "CredentialRetrievalError": _FOLLOW,
    "EndpointConnectionError": "mend the network, or correct endpoint= or region=",
    "ExpiredToken": "renew the credentials",
    "ExpiredTokenException": "renew the credentials",
    "InvalidClientTokenId": _ACCOUNT,
    "InvalidRegionError": "correct the region with ?region=",
    "InvalidSignatureException": "correct the credentials, and the machine's clock",
    "NoCredentialsError": _FOLLOW,
    "NoRegionError": "name the region with ?region=, or AWS_REGION",
    "PartialCredentialsError": _FOLLOW,
    "ProfileNotFound": "correct AWS_PROFILE",
    "QueueDoesNotExist": _MISSING,
    "ResourceNotFoundException": _MISSING,
    "SignatureDoesNotMatch": "correct the credentials, and the machine's clock",
    "TokenRetrievalError": "log in again: aws sso login",
    "UnauthorizedSSOTokenError": "log in again: aws sso login",
    "UnrecognizedClientException": _ACCOUNT,
}
"""What the operator has to do, by code."""
THROTTLED: Final = frozenset(
    {
        "InternalException",  # of EventBridge, for an entry
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
"""Codes of a service that is asked too much: the same request will succeed later."""
SERVER_FAULT: Final = 500  # first status of HTTP with which the service says that the fault is its own


def code_of(error: Exception) -> str:
    """Return AWS's code of an error; if a service has not answered, the name of botocore's class."""
    return str(_answer(error).get("Code") or type(error).__name__)


def aws_words(error: Exception) -> str:
    """Format an error as one line of bounded length: AWS's code, its message, and what to do if that is known."""
    code = code_of(error)
    words = " ".join(str(_answer(error).get("Message") or error).split()).removesuffix(".")
    words = words if len(words) <= WORDS_CHARS_MAX else f"{words[:WORDS_CHARS_MAX]}…"
    remedy = REMEDIES.get(code)
    said = f"{code}: {words}" if words and words != code else code
    return f"{said}; {remedy}" if remedy else said


def is_transient(error: Exception) -> bool:
    """Check whether the same request may succeed later: the service was throttled, failed itself, or was not reached.

    Of a request that was cut off nobody knows whether the service has done it.
    """
    answer: Any = getattr(error, "response", None)
    if not _answer(error):
        return isinstance(error, _errors().HTTPClientError | _errors().ConnectionError)
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return code_of(error) in THROTTLED or status >= SERVER_FAULT


def aws_errors() -> tuple[type[Exception], ...]:
    """Return the classes of errors of AWS and of botocore, for `except`; the library is loaded where one is raised."""
    return _errors().ClientError, _errors().BotoCoreError


def require_boto3() -> None:
    """Require the library of AWS, which is an extra. Raises `OperatorError`."""
    try:
        import_module("boto3")
    except ImportError as error:
        raise OperatorError("a store on AWS needs boto3: run pip install 'airunner-jobs[aws]'") from error


def open_client(
    url: AwsUrl, service: str, *, connections: int, retries: int = 0, wait_s: float = 0.0, read_s: float = READ_S
) -> Any:  # noqa: ANN401 - boto3 has no types
    """Open boto3's client of a service, for as many threads as it has connections. Raises `OperatorError`.

    `retries` are botocore's own, by which a request may be done twice; `wait_s` is how long a request of ours waits in
    the service on purpose, and `read_s` how long to wait for its answer besides.
    """
    require_boto3()
    boto3, config = import_module("boto3"), import_module("botocore.config")
    try:
        return boto3.session.Session().client(
            service,
            region_name=url.region,
            endpoint_url=url.endpoint_of(service),
            config=config.Config(
                connect_timeout=CONNECT_S,
                read_timeout=read_s + wait_s,
                max_pool_connections=connections,
                retries={"mode": "standard", "total_max_attempts": retries + 1},
                user_agent_extra="airunner",
                tcp_keepalive=True,
            ),
        )
    except _errors().BotoCoreError as error:
        words = f"cannot use {service} for the store aws:{url.table}: {aws_words(error)}"
        raise OperatorError(words, exit_code=EXIT_UNAVAILABLE) from error
    except ValueError as error:  # as of an endpoint that is no URL
        raise OperatorError(f"cannot use {service} for the store aws:{url.table}: {error}") from error


def _answer(error: Exception) -> Mapping[str, Any]:
    """Return what a service has answered about an error; empty: it has not answered."""
    answer: Any = getattr(error, "response", None)
    return answer["Error"] if answer and "Error" in answer else {}


def _errors() -> Any:  # noqa: ANN401 - as above
    return import_module("botocore.exceptions")
