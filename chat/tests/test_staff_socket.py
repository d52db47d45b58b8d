"""The staff's socket over real connections: who may listen, and what they are told."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings as configured
from django.test import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tenants import bell, noticeboard, scope, sessions
from tenants.models import Membership, Notice, StaffRules, StaffUser
from tests.clients.raw import ask
from tests.factories import make_operator, make_staff
from tests.shop import YUAN, Shop, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")

TEXTS = {"en": {"subject": "Look", "body": "here"}}


@pytest.fixture
def shop(upstream_url: str) -> Shop:
    return open_shop(upstream_url)


def session_of(staff: StaffUser | None) -> str:
    if staff is None:
        return "none"
    client = Client()
    client.force_login(staff)
    return client.cookies[configured.SESSION_COOKIE_NAME].value


@contextmanager
def opened(port: int, host: str, staff: StaffUser | None, **headers: str | None) -> Iterator[ClientConnection]:
    """Open a connection as a page of the host does, or with other headers; None leaves one out."""
    sent: dict[str, str | None] = {
        "Cookie": f"{configured.SESSION_COOKIE_NAME}={session_of(staff)}",
        "Origin": f"http://{host}",
        **headers,
    }
    given = {name: value for name, value in sent.items() if value is not None}
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    with connect(
        f"ws://{host}/ws/staff", sock=connection, additional_headers=given, proxy=None, origin=None
    ) as opened_connection:
        yield opened_connection


def say_hello(port: int, shop: Shop) -> None:
    ask(port, shop.host, {"message": "hello", "model": "echo"}, token=shop.alice.token)


def hear(connection: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(connection.recv(timeout=30)))


def hear_until(connection: ClientConnection, wanted: Any) -> dict[str, Any]:
    for _ in range(10):
        told = hear(connection)
        if wanted(told):
            return told
    raise AssertionError(told)


def test_a_member_hears_of_the_own_tenant_and_nobody_elses(chat_port: int, shop: Shop, upstream_url: str) -> None:
    other = open_shop(upstream_url)
    for each in (shop, other):
        each.credit(each.alice, YUAN)
        each.offer("echo")
    say_hello(chat_port, other)
    with opened(chat_port, shop.host, make_staff(shop.tenant)) as mine:
        assert hear(mine) == {"live": {"running": 0, "chats": 0, "failed": 0, "first_token_ms": None}, "unread": 0}
        say_hello(chat_port, shop)
        told = hear_until(mine, lambda told: told["live"]["chats"])
        assert (told["live"]["chats"], told["live"]["failed"], told["live"]["first_token_ms"] is None) == (1, 0, False)
    with opened(chat_port, "localhost", make_operator()) as operators:
        assert hear(operators)["live"]["chats"] >= 2


def test_a_notice_rings_for_those_it_is_for(chat_port: int, shop: Shop) -> None:
    owner, support = make_staff(shop.tenant), make_staff(shop.tenant, role=Membership.Role.SUPPORT)
    with opened(chat_port, shop.host, owner) as his, opened(chat_port, shop.host, support) as hers:
        assert (hear(his)["unread"], hear(hers)["unread"]) == (0, 0)
        with scope.tenant(shop.tenant.pk):
            made = noticeboard.put_up(
                kind=Notice.Kind.PRICE, texts=TEXTS, tenant_id=shop.tenant.pk, roles=[Membership.Role.OWNER]
            )
        assert made is not None
        assert hear_until(his, lambda told: told["unread"])["unread"] == 1
        assert hear(hers)["unread"] == 0
        with scope.tenant(shop.tenant.pk):
            noticeboard.mark_read(staff=owner, tenant_id=shop.tenant.pk, last_id=made.pk)
        assert hear_until(his, lambda told: not told["unread"])["unread"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": None},
        {"Cookie": "sessionid=made-up"},
        {"Origin": None},
        {"Origin": "null"},
        {"Origin": "http://evil.test"},
        {"Origin": "https://servicewechat.com"},
        {"Origin": "file:///x"},
    ],
)
def test_no_session_or_a_foreign_page_is_refused(chat_port: int, shop: Shop, headers: dict[str, str | None]) -> None:
    with (
        pytest.raises(InvalidStatus) as refused,
        opened(chat_port, shop.host, make_staff(shop.tenant), **headers),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_other_tenants_staff_operators_and_users_are_refused(chat_port: int, shop: Shop, upstream_url: str) -> None:
    stranger, operator = make_staff(open_shop(upstream_url).tenant), make_operator()
    blocked = make_staff(shop.tenant)
    StaffUser.objects.filter(pk=blocked.pk).update(is_active=False)
    for host, staff in (
        (shop.host, stranger),
        (shop.host, operator),
        (shop.host, blocked),
        ("localhost", make_staff(shop.tenant)),
        ("nobody.test", make_staff(shop.tenant)),
    ):
        with pytest.raises(InvalidStatus) as refused, opened(chat_port, host, staff):
            pass
        assert (host, refused.value.response.status_code) == (host, 403)
    with (
        pytest.raises(InvalidStatus) as refused,
        opened(chat_port, shop.host, None, Authorization=f"Bearer {shop.alice.token}"),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_a_session_without_the_wanted_second_factor_hears_nothing(chat_port: int, shop: Shop) -> None:
    staff, other = make_staff(shop.tenant), make_staff(shop.tenant, role=Membership.Role.SUPPORT)
    with opened(chat_port, shop.host, staff) as mine:
        hear(mine)
        with scope.tenant(shop.tenant.pk):
            StaffRules.objects.create(tenant=shop.tenant, second_factor_roles=[Membership.Role.OWNER])
        bell.ring([shop.tenant.pk])
        with pytest.raises(ConnectionClosed):
            hear_until(mine, lambda _told: False)
    with pytest.raises(InvalidStatus) as refused, opened(chat_port, shop.host, staff):
        pass
    assert refused.value.response.status_code == 403
    with opened(chat_port, shop.host, other) as hers:  # of whose role it is not wanted
        assert hear(hers)["unread"] == 0


def test_a_session_is_numbered_once_and_hears_nothing_once_ended(chat_port: int, shop: Shop) -> None:
    staff = make_staff(shop.tenant)
    cookie = f"{configured.SESSION_COOKIE_NAME}={session_of(staff)}"
    for _ in range(2):
        with opened(chat_port, shop.host, None, Cookie=cookie) as mine:
            hear(mine)
    assert [row.host for row in sessions.open_ones(staff)] == [shop.host]
    sessions.end(staff)
    with pytest.raises(InvalidStatus) as refused, opened(chat_port, shop.host, None, Cookie=cookie):
        pass
    assert refused.value.response.status_code == 403


def test_who_is_no_member_any_more_is_told_nothing_more(chat_port: int, shop: Shop) -> None:
    staff = make_staff(shop.tenant)
    with opened(chat_port, shop.host, staff) as mine:
        hear(mine)
        with scope.tenant(shop.tenant.pk):
            Membership.objects.filter(staff=staff).delete()
        bell.ring([shop.tenant.pk])
        with pytest.raises(ConnectionClosed):
            hear_until(mine, lambda _told: False)
