"""Assistants, chat rules and announcements: what users see, what models are told."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from chat.models import Announcement, ChatRules, PlatformAnnouncement, Role, RoleCategory
from chat.tests.talk import client_of, get, go_on, post, say
from chat.turn import Ask, open_turn
from tenants import scope
from tenants.models import EndUser, Tenant
from tests.factories import make_tenant, make_user
from tests.shop import Shop, open_shop

pytestmark = pytest.mark.django_db


def make_role(tenant: Tenant, slug: str, **fields: Any) -> Role:
    with scope.tenant(tenant.pk):
        return Role.objects.create(
            tenant=tenant, slug=slug, **{"name": slug, "instructions": f"secret {slug}", **fields}
        )


def make_category(tenant: Tenant, slug: str, position: int = 0) -> RoleCategory:
    with scope.tenant(tenant.pk):
        return RoleCategory.objects.create(tenant=tenant, slug=slug, name=slug, position=position)


def test_assistants_by_category() -> None:
    tenant, other = make_tenant(), make_tenant()
    work, fun = make_category(tenant, "work", 2), make_category(tenant, "fun", 1)
    make_category(tenant, "empty")
    make_role(other, "theirs", category=make_category(other, "work"))
    make_role(tenant, "off", category=work, is_enabled=False)
    make_role(tenant, "poet", category=fun, position=2, opening="来一首？", suggestions=" 写春天 \n\n写月亮\n")
    make_role(tenant, "clerk", category=work, position=1, description="周报", is_default=True)
    make_role(tenant, "plain", position=3)
    client = client_of(tenant, make_user(tenant))
    reply = get(client, "roles")
    assert [row["slug"] for row in reply.json()["data"]] == ["clerk", "poet", "plain"]
    assert reply.json()["data"][1] == {
        "slug": "poet",
        "name": "poet",
        "category": {"slug": "fun", "name": "fun"},
        "description": "",
        "avatar_url": "",
        "opening": "来一首？",
        "suggestions": ["写春天", "写月亮"],
        "is_default": False,
    }
    assert "secret" not in reply.content.decode()
    for query, slugs in (({"category": "fun"}, ["poet"]), ({"q": "周"}, ["clerk"]), ({"category": "none"}, [])):
        assert [row["slug"] for row in get(client, "roles", query).json()["data"]] == slugs
    shelves = get(client, "roles/categories").json()["data"]
    assert [row["slug"] for row in shelves] == ["fun", "work"]


@pytest.fixture
def shop() -> Shop:
    return open_shop("http://127.0.0.1:1/v1")


def sent(shop: Shop, **fields: Any) -> list[tuple[str, str]]:
    """Return what a question is sent upstream with."""
    with scope.tenant(shop.tenant.pk):
        turn = open_turn(tenant=shop.tenant, user=shop.alice.user, ask=Ask(message="now", **fields), language="en")
    return [(message["role"], message["content"]) for message in turn.request.messages]


def rule(shop: Shop, **fields: Any) -> None:
    with scope.tenant(shop.tenant.pk):
        ChatRules.objects.create(tenant=shop.tenant, **fields)


def test_the_tenants_instructions_stand_before_the_assistants(shop: Shop) -> None:
    shop.offer("m")
    elsewhere = open_shop("http://127.0.0.1:1/v1")
    rule(elsewhere, instructions="Of another tenant.")
    assert sent(shop) == [("user", "now")]
    rule(shop, instructions="Be kind.")
    make_role(shop.tenant, "poet", instructions="Answer in verse.")
    assert sent(shop) == [("system", "Be kind."), ("user", "now")]
    assert sent(shop, role="poet") == [("system", "Be kind.\n\nAnswer in verse."), ("user", "now")]


def test_the_tenants_instructions_are_in_no_answer_of_the_api(shop: Shop) -> None:
    shop.offer("m")
    rule(shop, instructions="Be kind.")
    make_role(shop.tenant, "poet", instructions="Answer in verse.", is_default=True)
    sent(shop)
    client = client_of(shop.tenant, shop.alice.user)
    [conversation] = get(client, "conversations").json()["data"]
    paths = ("conversations", f"conversations/{conversation['id']}/messages", "roles", "export", "export?format=json")
    bodies = [get(client, path).content.decode() for path in paths]
    assert [body for body in bodies if "kind" in body or "verse" in body] == []
    assert conversation["role"] == "poet"


@pytest.mark.parametrize(
    ("rules", "offer", "turns"),
    [
        ({}, {}, 3),
        ({"context_turns": 2}, {}, 2),
        ({"context_turns": 0}, {}, 0),
        ({"context_turns": 2}, {"context_turns": 1}, 1),
        ({"context_turns": 1}, {"context_turns": 3}, 3),
        ({"context_tokens": 0}, {}, 0),
        ({"context_tokens": 0}, {"context_tokens": 8000}, 3),
        ({"context_tokens": 40}, {"context_turns": 3}, 2),
    ],
)
def test_how_much_of_a_conversation_is_sent(
    shop: Shop, rules: dict[str, int], offer: dict[str, int], turns: int
) -> None:
    shop.offer("m", token_ratio_percent=100, **offer)
    if rules:
        rule(shop, **rules)
    conversation = say(shop.alice.user, "one")
    go_on(conversation, "two", "three")
    texts = [text for _role, text in sent(shop, conversation=str(conversation.pk))]
    words = ["one", "two", "three"][3 - turns :]
    assert texts == [text for word in words for text in (word, f"re: {word}")] + ["now"]


def announce(tenant: Tenant, title: str, **fields: Any) -> str:
    with scope.tenant(tenant.pk):
        return f"tenant-{Announcement.objects.create(tenant=tenant, title=title, body='b', **fields).pk}"


def told(user: EndUser, **query: Any) -> list[tuple[str, str, bool]]:
    """Return what a user is told, and whether they have read it."""
    rows = get(client_of(user.tenant, user), "announcements", query).json()["data"]
    return [(row["id"].split("-")[0], row["title"], row["is_read"]) for row in rows]


def test_announcements_and_who_has_read_them() -> None:
    tenant, other = make_tenant(), make_tenant()
    alice, bob, carol = make_user(tenant), make_user(tenant), make_user(other)
    now, hour = timezone.now(), timedelta(hours=1)
    everyone = PlatformAnnouncement.objects.create(title="everyone", body="b", starts_at=now - 3 * hour)
    first = announce(tenant, "first", starts_at=now - 2 * hour, ends_at=now + hour)
    gone = announce(tenant, "over", starts_at=now - 2 * hour, ends_at=now - hour)
    later = announce(tenant, "later", starts_at=now + hour)
    off = announce(tenant, "off", starts_at=now - hour, is_enabled=False)
    theirs = announce(other, "theirs", starts_at=now - hour)
    assert told(alice) == [("tenant", "first", False), ("platform", "everyone", False)]
    client = client_of(tenant, alice)
    for known in (first, first, f"platform-{everyone.pk}"):
        assert post(client, f"announcements/{known}/read").json() == {"code": 1, "msg": "ok", "data": None}
    assert told(alice) == [("tenant", "first", True), ("platform", "everyone", True)]
    assert told(alice, unread="true") == []
    assert told(bob) == [("tenant", "first", False), ("platform", "everyone", False)]
    assert told(carol) == [("tenant", "theirs", False), ("platform", "everyone", False)]
    for unknown in (gone, later, off, theirs, "tenant-x", "nobody-1", "1", "platform-0", f"tenant-{'9' * 19}"):
        reply = post(client, f"announcements/{unknown}/read")
        assert (unknown, reply.status_code, reply.json()["type"]) == (unknown, 404, "announcement_not_found")
