"""What an agent is to do, from the options of its command line."""

from __future__ import annotations

import pytest

from airunner.agent.plan import offered_secrets, tags_of
from airunner.protocol.errors import OperatorError


@pytest.mark.parametrize("tag", ["os", "=linux", "o s=x", "os=" + "x" * 200])
def test_a_tag_that_is_none_is_told(tag: str) -> None:
    with pytest.raises(OperatorError, match="expected TAG=VALUE"):
        tags_of([tag], print)


def test_a_secret_that_an_agent_does_not_have_keeps_it_from_starting() -> None:
    assert offered_secrets(["A"], {"A": "1", "B": "2"}) == {"A": "1"}
    with pytest.raises(OperatorError, match="--secret NO_SUCH: there is no such variable"):
        offered_secrets(["NO_SUCH"], {})
