"""The public names are there, and the blocking client has the methods of the asynchronous one."""

from __future__ import annotations

from inspect import signature
from typing import get_args

import pytest

import airunner
from airunner import AirunnerError, Client, api
from airunner.sync import Client as SyncClient


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    methods = {name for name in dir(Client) if not name.startswith("_")}
    makers = {"blocking", "iterating"}
    assert {name for name in dir(SyncClient) if not name.startswith("_")} - makers == methods
    for name in (*methods, "__init__"):
        ours, theirs = getattr(SyncClient, name), getattr(Client, name)
        assert signature(ours).parameters == signature(theirs).parameters, name
        assert "await" not in ours.__doc__ if ours.__doc__ else name == "__init__"


def test_every_public_name_is_there_and_no_other() -> None:
    names = {name for name in vars(api) if name[0].isupper() and name != "TYPE_CHECKING"}
    assert names | {"LogCheck", "SavedHead", "__version__"} == {*airunner.__all__}
    assert {body.__name__ for body in get_args(airunner.EventBody)} <= names
    assert all(getattr(airunner, name) is not None for name in dir(airunner))
    assert dir(airunner) == sorted([*airunner.__all__, "sync", "testing"])
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = airunner.nothing


def test_every_error_has_a_code_and_one_base_class() -> None:
    errors = {error for error in vars(api).values() if isinstance(error, type) and issubclass(error, Exception)}
    assert all(issubclass(error, AirunnerError) for error in errors)
    assert len({error.code for error in errors}) == len(errors) - 2, "the base classes have the same"
    assert airunner.OperatorError("no broker answers", exit_code=69).code == "unavailable"
