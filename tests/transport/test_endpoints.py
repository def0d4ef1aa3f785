"""Endpoints: which are understood, what is said about the others, and how the names of brokers are resolved."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
import zmq

from airunner.certs.curve import CurvePair
from airunner.protocol.errors import OperatorError
from airunner.transport.endpoints import endpoints_of, split_endpoint, unanswered
from airunner.transport.http import open_http
from airunner.transport.ports import Ending
from airunner.transport.sockets import CurveRouter
from tests.transport.test_networks import over_sockets, received
from tests.virtualtime import real_time  # noqa: F401 - a fixture

NAME: Final = "broker.test"


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize(
    ("endpoint", "host", "port"),
    [
        ("tcp://127.0.0.1:7070", "127.0.0.1", 7070),
        ("tcp://build.example.com:0", "build.example.com", 0),
        ("tcp://[::1]:0", "::1", 0),
        ("tcp://[2001:db8::7]:65535", "2001:db8::7", 65535),
        ("tcp://[fe80::1%1]:7070", "fe80::1%1", 7070),
        ("tcp://[fe80::1%lo]:7070", "fe80::1%lo", 7070),
        ("tcp://[::ffff:127.0.0.1]:7070", "127.0.0.1", 7070),
    ],
)
def test_an_endpoint_is_a_name_an_address_or_an_ipv6_address_in_brackets(endpoint: str, host: str, port: int) -> None:
    assert split_endpoint(endpoint) == (host, port)


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("tcp://::1:7070", r"an IPv6 address stands in brackets, as in \[::1\]:7070"),
        ("tcp://::1", "an IPv6 address stands in brackets"),
        ("tcp://[::1]", "it names no port"),
        ("tcp://build", "it names no port"),
        ("tcp://:7070", "it names no host"),
        ("tcp://[]:7070", "'' is not an IPv6 address"),
        ("tcp://[10.0.0.1]:7070", "'10.0.0.1' is not an IPv6 address"),
        ("tcp://[fe80::1]:7070", r"a link-local address names its interface, as in \[fe80::1%eth0\]"),
        ("tcp://[fe80::1%nosuch]:7070", "this machine has no interface 'nosuch'"),
        ("tcp://127.0.0.1:65536", "the port '65536' is not a number from 0 to 65535"),
        ("tcp://127.0.0.1:\u0667", "the port '\u0667' is not a number"),
        ("tcp://127.0.0.1:7070/", "the port '7070/' is not a number"),
        ("tcp://me@build:7070", "'me@build' is neither an address nor the name of a host"),
        ("http://127.0.0.1:7070", "it does not begin with tcp://"),
        ("127.0.0.1:7070", "it does not begin with tcp://"),
        ("tcp://*:7070", "`\\*` and port 0 are for a broker's --listen"),
        ("tcp://127.0.0.1:0", "`\\*` and port 0 are for a broker's --listen"),
    ],
)
def test_a_wrong_endpoint_is_refused_with_what_is_wrong_and_what_to_write(endpoint: str, said: str) -> None:
    with pytest.raises(OperatorError, match=said) as refused:
        endpoints_of(None, {"AIRUNNER_BROKER": endpoint})
    assert refused.value.message.startswith("AIRUNNER_BROKER")
    assert endpoint in refused.value.message
    assert "write" in refused.value.message


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let `NAME` resolve to `addresses`; without any it does not resolve."""
    lookup = socket.getaddrinfo

    def known(host: Any, *rest: Any, **more: Any) -> Any:
        if host not in (NAME, NAME.encode()) or more.get("flags") == socket.AI_NUMERICHOST:
            return lookup(host, *rest, **more)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [entry for address in addresses for entry in lookup(address, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", known)


@pytest.mark.parametrize(
    ("listen", "host", "addresses"),
    [
        pytest.param("[::1]", "[::1]", (), marks=ipv6),
        pytest.param("[::]", "127.0.0.1", (), marks=ipv6),
        pytest.param("[::]", "[::1]", (), marks=ipv6),
        pytest.param("[::1]", NAME, ("::1",), marks=ipv6),
        pytest.param("[::1]", NAME, ("127.0.0.1", "::1"), marks=ipv6),
        pytest.param("127.0.0.1", NAME, ("::1", "127.0.0.1"), marks=ipv6),
        ("[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]", ()),
    ],
)
async def test_requests_travel_over_ipv6_and_to_a_name_by_whichever_of_its_addresses_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listen: str, host: str, addresses: tuple[str, ...]
) -> None:
    resolve_to(monkeypatch, *addresses)
    async with over_sockets(tmp_path, f"tcp://{listen}:0") as sides, anyio.create_task_group() as group:

        async def keep_sending() -> None:
            port = split_endpoint(sides.router.endpoint).port
            for _ in range(2):  # one connection for each address of the name
                with closing(sides.network.dealer(f"tcp://{host}:{port}")) as dealer:
                    dealer.send([b"hello"])
                    await dealer.ended()

        group.start_soon(keep_sending)
        with anyio.fail_after(10):
            assert (await received(sides.router))[0].frames == [b"hello"]
        group.cancel_scope.cancel()


async def test_a_name_that_does_not_resolve_ends_the_connection_with_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch)
    async with over_sockets(tmp_path) as sides:
        with closing(sides.network.dealer(f"tcp://{NAME}:7070")) as dealer, anyio.fail_after(10):
            assert await dealer.ended() is Ending.UNRESOLVED


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("tcp://nosuch.invalid:0", "neither an address or name of this machine nor one of its interfaces"),
        ("tcp://192.0.2.99:0", "no interface of this machine has that address"),
    ],
)
def test_a_broker_that_cannot_listen_says_why_and_asks_for_no_other_broker(listen: str, said: str) -> None:
    pair = CurvePair(*zmq.curve_keypair())
    with pytest.raises(OperatorError, match=f"cannot listen on {listen}: .*{said}"):
        CurveRouter(zmq.Context.instance(), pair, listen)


@pytest.mark.parametrize(("address", "shown"), [pytest.param("[::1]:0", "[::1]:", marks=ipv6), ("*:0", "0.0.0.0:")])
async def test_http_is_served_at_an_ipv6_address_and_on_all_interfaces(address: str, shown: str) -> None:
    server = await open_http(address)
    assert server.address.startswith(shown)
    await server._listener.aclose()


@pytest.mark.parametrize(
    ("endpoint", "advice"),
    [
        ("tcp://127.0.0.1:7070", "start one with `airunner up`"),
        ("tcp://[::1]:7070", "start one with `airunner up`"),
        ("tcp://127.example.com:7070", "check that it runs there"),
        ("tcp://[2001:db8::7]:7070", "check that it runs there"),
    ],
)
def test_a_broker_is_to_be_started_only_where_it_would_be_on_this_machine(endpoint: str, advice: str) -> None:
    assert advice in unanswered(endpoint, 30, away=False)
