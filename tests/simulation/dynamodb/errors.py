"""Errors of DynamoDB as botocore raises them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

STATUS = {"InternalServerError": 500, "ServiceUnavailable": 503}


def client_error(code: str, message: str, operation: str = "", **more: Any) -> ClientError:
    """An answer with this error code."""
    response: dict[str, Any] = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": STATUS.get(code, 400), "RetryAttempts": 0, "HTTPHeaders": {}},
        **more,
    }
    return ClientError(response, operation)  # type: ignore[arg-type]


def invalid(message: str) -> ClientError:
    """ValidationException."""
    return client_error("ValidationException", message)


def failed_condition(operation: str, item: Mapping[str, Any] | None) -> ClientError:
    """ConditionalCheckFailedException of a single write; with the item, if it was asked for."""
    more = {} if item is None else {"Item": item}
    return client_error("ConditionalCheckFailedException", "The conditional request failed", operation, **more)


def cancelled(reasons: Sequence[Mapping[str, Any]]) -> ClientError:
    """TransactionCanceledException: for each item of the transaction what was wrong with it, or "None"."""
    codes = ", ".join(reason["Code"] for reason in reasons)
    return client_error(
        "TransactionCanceledException",
        f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
        "TransactWriteItems",
        CancellationReasons=list(reasons),
        Message="Transaction cancelled",
    )
