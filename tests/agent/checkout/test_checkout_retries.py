"""What a network does wrong is tried again, and told; what a remote refuses is not."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from airunner.agent.checkout.git import TRIES_MAX, CheckoutFailed, is_of_network, network_cause
from airunner.agent.checkout.repository import Rules
from tests.agent.checkout.conftest import Checkout
from tests.agent.checkout.repositories import git, new_repository
from tests.agent.checkout.serving import HttpServer, over_http


@pytest.fixture
def server(tmp_path: Path) -> Generator[HttpServer]:
    repository = new_repository(tmp_path / "p")
    git(repository, "update-server-info")
    with over_http(tmp_path) as server:
        yield server


async def tried(checkout: Checkout, server: HttpServer) -> list[str]:
    """How often it was told that there is another try; it has to succeed at last."""
    checkout.rules = Rules()
    await checkout(f"http://{server.authority}/p/.git")
    return [line for line in checkout.told if "trying again" in line]


async def test_a_remote_that_is_overloaded_is_asked_again(checkout: Checkout, server: HttpServer) -> None:
    server.failures = [503, 429]
    told = await tried(checkout, server)
    assert ["503" in told[0], "429" in told[1], len(told)] == [True, True, 2]


async def test_there_is_an_end_to_it(checkout: Checkout, server: HttpServer) -> None:
    server.failures = [500] * 100
    with pytest.raises(CheckoutFailed, match="500"):
        await tried(checkout, server)
    assert len(server.offered) == TRIES_MAX


@pytest.mark.parametrize("status", [403, 404])
async def test_a_remote_that_refuses_is_asked_once(checkout: Checkout, server: HttpServer, status: int) -> None:
    server.failures = [status] * 100
    with pytest.raises(CheckoutFailed):
        await tried(checkout, server)
    assert len(server.offered) <= 2  # git asks by its older protocol too


@pytest.mark.parametrize(
    ("words", "passing"),
    [
        ("fatal: unable to access 'https://h/': Could not resolve host: h", True),
        ("ssh: Could not resolve hostname h: Temporary failure in name resolution", True),
        ("ssh: connect to host h port 22: Connection refused", True),
        ("ssh: connect to host h port 22: Connection timed out", True),
        ("kex_exchange_identification: read: Connection reset by peer", True),
        ("fatal: unable to connect to h:\nh[0: 10.0.0.1]: errno=No route to host", True),
        ("error: RPC failed; curl 18 transfer closed with outstanding read data remaining\nfatal: early EOF", True),
        ("error: RPC failed; curl 92 HTTP/2 stream 5 was not closed cleanly: CANCEL\nfatal: early EOF", True),
        ("fatal: the remote end hung up unexpectedly", True),
        ("error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502", True),
        ("The requested URL returned error: 429", True),
        ("The requested URL returned error: 403", False),
        ("fatal: repository 'https://h/x/' not found", False),
        ("git@h: Permission denied (publickey).\nfatal: the remote end hung up unexpectedly", False),
        ("Host key verification failed.\nfatal: Could not read from remote repository.", False),
        ("fatal: Authentication failed for 'https://h/x/'", False),
        ("fatal: remote error: upload-pack: not our ref 0123\nfatal: the remote end hung up unexpectedly", False),
        (
            "warning: Could not find remote branch x to clone.\nfatal: Remote branch x not found in upstream origin",
            False,
        ),
        ("error: object 0123: hasDotgit: contains '.git'\nfatal: fsck error in packed object", False),
        ("fatal: write error: No space left on device\nfatal: early EOF", False),
    ],
)
def test_gits_words_tell_the_network_from_the_rest(words: str, passing: bool) -> None:  # noqa: FBT001
    assert is_of_network(words) is passing


def test_the_cause_is_told_and_not_gits_advice() -> None:
    cause = "ssh: connect to host h port 22: Connection refused"
    advice = "fatal: Could not read from remote repository.\n\nPlease make sure the repository exists."
    assert [network_cause(f"{cause}\r\n{advice}"), network_cause("Early EOF.")] == [cause, "Early EOF"]
