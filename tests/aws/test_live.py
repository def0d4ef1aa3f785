"""The laws in a real account of AWS: off unless the environment names a prefix for tables, as `make aws-live` does."""

from __future__ import annotations

import os

import pytest

from tests.aws.serving import ENGINES, LIVE, Emulators

pytestmark = pytest.mark.timeout(60)


def test_the_live_account_is_used_where_one_is_named(aws_emulators: Emulators):
    if LIVE not in os.environ:
        pytest.skip(
            f"nothing was run in a real account of AWS: `make aws-live` does it, with {LIVE}=prefix of its tables"
        )
    assert "live" in ENGINES
    account = aws_emulators("live")
    assert account.url is None, "AWS has its own endpoints"
    assert account.client("sts").get_caller_identity()["Account"].isdecimal()
