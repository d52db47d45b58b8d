"""Where a URL that a tenant has set may lead: by its numbers, by a name's, by a redirect."""

import ipaddress
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chat.events import Delta, Event, Failed, FailureKind
from chat.upstream import client
from chat.upstream.addresses import ForbiddenAddressError, check_address, is_forbidden_literal, is_public
from chat.upstream.base import ChatRequest, UpstreamTarget
from chat.upstream.openai import OpenAIUpstream
from tests.doubles.upstream import ScriptedUpstream

REQUEST = ChatRequest(messages=[{"role": "user", "content": "hello"}], max_tokens=100)
NOWHERE_PRIVATE: frozenset[str] = frozenset()


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        yield scripted
        await client.close()


async def answer(base_url: str, may_reach: frozenset[str] | None, model: str = "echo") -> list[Event]:
    target = UpstreamTarget(name="a", base_url=base_url, model=model, may_reach=may_reach)
    return [event async for batch in OpenAIUpstream(target).stream(REQUEST) for event in batch]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),  # noqa: S104
        *("169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1"),
        *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.2.1"),
        *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "fec0::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("2002:7f00:1::", "2002:c0a8:101::1", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
    ],
)
def test_what_is_not_anybodys(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(ForbiddenAddressError):
        check_address(address, [])


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_what_is_anybodys(address: str) -> None:
    check_address(address, [])


def test_what_the_operator_allows() -> None:
    check_address("10.1.2.3", ["192.168.0.0/16", "10.1.2.0/24"])
    check_address("127.0.0.1", ["127.0.0.1"])
    with pytest.raises(ForbiddenAddressError):
        check_address("10.1.3.3", ["10.1.2.0/24", "fd00::/8"])


@pytest.mark.parametrize(
    ("url", "forbidden"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://LOCALHOST./v1", True),
        ("http://api.localhost/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://[::ffff:127.0.0.1]/v1", True),
        ("http://169.254.169.254/v1", True),
        ("https://1.1.1.1/v1", False),
        ("https://api.example.com/v1", False),
        ("no url", False),
    ],
)
def test_what_a_form_can_tell(url: str, *, forbidden: bool) -> None:
    assert is_forbidden_literal(url, []) == forbidden


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0x7f000001"])
async def test_no_form_of_loopback_is_reached(upstream: ScriptedUpstream, host: str) -> None:
    (failed,) = await answer(f"http://{host}:{upstream.port}/v1", NOWHERE_PRIVATE)

    assert isinstance(failed, Failed)
    assert failed.kind == FailureKind.NETWORK
    assert upstream.requests == []


async def test_a_name_that_resolves_to_loopback_is_not_reached(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The resolver is the machine's; a name that it knows as public at first and as loopback later is one of rebinding.
    looked_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: looked_up(_rebound(host), *rest, **more))
    url = f"http://rebinding.example.com:{upstream.port}/v1"
    (failed,) = await answer(url, NOWHERE_PRIVATE)
    assert isinstance(failed, Failed)
    assert failed.kind == FailureKind.NETWORK
    assert upstream.requests == []
    # The same name is reached where nothing is guarded: it was the guard that refused.
    assert [event.text for event in await answer(url, None) if isinstance(event, Delta) and event.text] != []


def _rebound(host: Any) -> Any:
    return "127.0.0.1" if host == "rebinding.example.com" else host


async def test_what_the_operator_allows_is_reached(upstream: ScriptedUpstream) -> None:
    events = await answer(upstream.base_url, frozenset({"127.0.0.0/8"}))

    assert "".join(event.text for event in events if isinstance(event, Delta)) == "hello"


async def test_a_connection_of_the_platforms_is_not_used_for_a_tenant(upstream: ScriptedUpstream) -> None:
    await answer(upstream.base_url, None)
    (failed,) = await answer(upstream.base_url, NOWHERE_PRIVATE)

    assert isinstance(failed, Failed)
    assert len(upstream.requests) == 1


async def test_a_redirect_is_not_followed(upstream: ScriptedUpstream) -> None:
    (failed,) = await answer(upstream.base_url, frozenset({"127.0.0.0/8"}), model="redirect")

    assert isinstance(failed, Failed)
    assert (failed.kind, failed.status) == (FailureKind.PROTOCOL, 307)
    assert len(upstream.requests) == 1
