"""The JSON API of history: one's own, and nobody else's."""

import json
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from chat.models import ChatRules, Conversation, Feedback, Report, SearchEntry
from chat.tasks import erase_deleted, index_messages
from chat.tests.talk import client_of, get, go_on, messages_of, post, say
from chat.turn import Ask, open_turn
from tenants import scope
from tenants.errors import ProductError
from tenants.models import Compliance
from tests.factories import host_of, make_tenant, make_token, make_user
from tests.shop import open_shop

pytestmark = pytest.mark.django_db


def test_ones_own_history() -> None:
    tenant = make_tenant()
    user = make_user(tenant)
    older, newer = say(user, "a", "b"), say(user, "c")
    client = client_of(tenant, user)
    listed = client.get("/api/chat/conversations").json()
    assert (listed["code"], [row["id"] for row in listed["data"]]) == (1, [str(newer.pk), str(older.pk)])
    said = client.get(f"/api/chat/conversations/{older.pk}/messages").json()["data"]
    assert [(row["question"], row["answer"], row["model"]) for row in said] == [
        ("a", "re: a", "m"),
        ("b", "re: b", "m"),
    ]
    one = client.get(f"/api/chat/messages/{said[0]['id']}").json()["data"]
    assert one == said[0]


def test_pages() -> None:
    tenant = make_tenant()
    user = make_user(tenant)
    for number in range(5):
        say(user, str(number))
    client = client_of(tenant, user)
    first = client.get("/api/chat/conversations", {"limit": 3}).json()["data"]
    second = client.get("/api/chat/conversations", {"limit": 3, "before": first[-1]["updated_at"]}).json()["data"]
    assert [row["title"] for row in first + second] == ["4", "3", "2", "1", "0"]


def test_nobody_elses() -> None:
    ours, theirs = make_tenant(), make_tenant()
    user, neighbour, stranger = make_user(ours), make_user(ours), make_user(theirs)
    hidden = [say(neighbour, "of the neighbour"), say(stranger, "of the stranger")]
    client = client_of(ours, user)
    assert client.get("/api/chat/conversations").json()["data"] == []
    for conversation in hidden:
        reply = client.get(f"/api/chat/conversations/{conversation.pk}/messages")
        assert (reply.status_code, reply.json()["type"]) == (404, "conversation_not_found")
        with scope.tenant(conversation.tenant_id):
            message = conversation.messages.get()
        reply = client.get(f"/api/chat/messages/{message.pk}")
        assert (reply.status_code, reply.json()["type"]) == (404, "message_not_found")
    stranger_here = Client(headers={"Host": host_of(ours), "Authorization": f"Bearer {make_token(stranger)}"})
    assert stranger_here.get("/api/chat/conversations").status_code == 401


@pytest.mark.parametrize("path", ["conversations", "conversations/x/messages", "messages/x"])
def test_without_a_token(path: str) -> None:
    reply = Client(headers={"Host": host_of(make_tenant())}).get(f"/api/chat/{path}")
    assert (reply.status_code, reply.json()["code"]) == (401, -1)


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"before": "yesterday"}])
def test_bad_parameters(query: dict[str, str]) -> None:
    tenant = make_tenant()
    reply = client_of(tenant, make_user(tenant)).get("/api/chat/conversations", query)
    assert (reply.status_code, reply.json()["code"]) == (400, 10001)


def test_an_id_that_is_none() -> None:
    tenant = make_tenant()
    client = client_of(tenant, make_user(tenant))
    assert client.get("/api/chat/conversations/x/messages").status_code == 404
    assert client.get("/api/chat/messages/x").status_code == 404


def titles(reply: Any) -> list[str]:
    return [row["title"] for row in reply.json()["data"]]


def test_a_conversation_is_renamed_pinned_and_archived() -> None:
    tenant = make_tenant()
    user = make_user(tenant)
    first, _second = say(user, "first"), say(user, "second")
    client = client_of(tenant, user)
    changed = post(client, f"conversations/{first.pk}", {"title": "  春天 ", "is_pinned": True}).json()["data"]
    assert changed == get(client, f"conversations/{first.pk}").json()["data"]
    facts = ("title", "is_pinned", "is_archived", "role")
    assert [changed[name] for name in facts] == ["春天", True, False, None]
    assert titles(get(client, "conversations")) == ["second", "春天"]
    assert titles(get(client, "conversations", {"pinned": "true"})) == ["春天"]
    assert titles(get(client, "conversations", {"pinned": "false"})) == ["second"]
    assert titles(get(client, "conversations", {"q": "春"})) == ["春天"]
    archived = post(client, f"conversations/{first.pk}", {"is_archived": True}).json()["data"]
    assert [archived[name] for name in facts] == ["春天", True, True, None]
    assert titles(get(client, "conversations")) == ["second"]
    assert titles(get(client, "conversations", {"archived": "true"})) == ["春天"]
    assert post(client, f"conversations/{first.pk}").json()["data"] == archived


@pytest.mark.parametrize("body", [{"title": " "}, {"title": "x" * 121}, {"is_pinned": "perhaps"}, {"title": "a\x00b"}])
def test_what_a_conversation_cannot_be(body: dict[str, Any]) -> None:
    tenant = make_tenant()
    user = make_user(tenant)
    conversation = say(user, "a")
    reply = post(client_of(tenant, user), f"conversations/{conversation.pk}", body)
    assert (reply.status_code, reply.json()["type"]) == (400, "invalid_request")


def test_a_page_ends_between_two_of_one_moment() -> None:
    tenant = make_tenant()
    user = make_user(tenant)
    for number in range(5):
        say(user, str(number))
    moment = timezone.now()
    with scope.tenant(tenant.pk):
        Conversation.objects.update(updated_at=moment)
    client, query = client_of(tenant, user), {"limit": 2, "before": moment.isoformat()}
    seen = get(client, "conversations", {"limit": 2}).json()["data"]
    for _page in range(2):
        seen += get(client, "conversations", {**query, "before_id": seen[-1]["id"]}).json()["data"]
    assert [row["title"] for row in seen] == ["4", "3", "2", "1", "0"]


def test_a_deleted_conversation_is_gone_and_its_receipts_stay() -> None:
    tenant = make_tenant()
    user = make_user(tenant)
    receipt = {"model": "m", "charge": "5"}
    kept, gone = say(user, "kept 春天"), say(user, "gone 春天", receipt=receipt)
    client = client_of(tenant, user)
    [said] = messages_of(gone)
    index_messages()
    link = post(client, f"conversations/{gone.pk}/share").json()["data"]
    assert get(client, f"shared/{link['token']}").status_code == 200
    assert post(client, f"conversations/{gone.pk}/delete").json() == {"code": 1, "msg": "ok", "data": None}
    assert titles(get(client, "conversations")) == ["kept 春天"]
    assert [row["conversation_id"] for row in get(client, "search", {"q": "春天"}).json()["data"]] == [str(kept.pk)]
    for path in (
        f"conversations/{gone.pk}",
        f"conversations/{gone.pk}/messages",
        f"conversations/{gone.pk}/export",
        f"messages/{said.pk}",
        f"shared/{link['token']}",
    ):
        assert (path, get(client, path).status_code) == (path, 404)
    for path in (f"conversations/{gone.pk}", f"conversations/{gone.pk}/share", f"conversations/{gone.pk}/delete"):
        assert (path, post(client, path).status_code) == (path, 404)
    files = [get(client, "export", {"format": kind}).content.decode() for kind in ("md", "json")]
    assert [("kept 春天" in file, "gone" in file) for file in files] == [(True, False)] * 2
    assert get(client, "shares").json()["data"] == []
    receipts = client.get("/api/billing/receipts").json()["data"]
    assert [(row["message_id"], row["receipt"]) for row in receipts] == [(str(said.pk), receipt)]


def test_what_was_said_in_a_deleted_conversation_is_erased_in_time(settings: Settings) -> None:
    settings.DELETED_CONVERSATION_DAYS = 3
    tenant = make_tenant()
    user = make_user(tenant)
    conversations = say(user, "kept"), say(user, "new"), say(user, "old", receipt={"charge": "5"})
    client = client_of(tenant, user)
    post(client, f"messages/{messages_of(conversations[2])[0].pk}/feedback", {"rating": "up"})
    for conversation, days in zip(conversations[1:], (2, 4), strict=True):
        post(client, f"conversations/{conversation.pk}/delete")
        with scope.tenant(tenant.pk):
            deleted = timezone.now() - timedelta(days=days)
            Conversation.objects.filter(pk=conversation.pk).update(deleted_at=deleted)
    assert (erase_deleted(), erase_deleted()) == (1, 0)
    said = [messages_of(conversation)[0] for conversation in conversations]
    assert [(row.question, row.answer, row.receipt) for row in said] == [
        ("kept", "re: kept", None),
        ("new", "re: new", None),
        ("", "", {"charge": "5"}),
    ]
    with scope.tenant(tenant.pk):
        assert list(Conversation.objects.order_by("created_at").values_list("title", flat=True)) == ["kept", "new", ""]
        assert (Feedback.objects.count(), SearchEntry.objects.count()) == (0, 0)


def test_a_message_of_a_deleted_conversation_is_not_continued() -> None:
    shop = open_shop("http://127.0.0.1:1/v1")
    shop.offer("m")
    conversation = say(shop.alice.user, "hello")
    post(client_of(shop.tenant, shop.alice.user), f"conversations/{conversation.pk}/delete")
    ask = Ask(message="and now?", conversation=str(conversation.pk))
    with scope.tenant(shop.tenant.pk), pytest.raises(ProductError) as refused:
        open_turn(tenant=shop.tenant, user=shop.alice.user, ask=ask, language="en")
    assert refused.value.type == "conversation_not_found"


def test_one_conversation_as_a_file() -> None:
    tenant = make_tenant()
    with scope.tenant(tenant.pk):
        ChatRules.objects.create(tenant=tenant, instructions="a secret")
        Compliance.objects.create(tenant=tenant, model_filing="Shanghai-1")
    user = make_user(tenant)
    conversation = say(user, "你好", answers=("你好！\n\n- 一",))
    client = client_of(tenant, user)
    reply = get(client, f"conversations/{conversation.pk}/export")
    name = f"conversation-{conversation.pk}"
    assert (reply["Content-Type"], reply["Content-Disposition"]) == (
        "text/markdown; charset=utf-8",
        f'attachment; filename="{name}.md"',
    )
    label = "Generated by AI, for reference only. Filing number: Shanghai-1."
    aigc = {"Label": "1", "ContentProducer": tenant.name, "ProduceID": name}
    zone = ZoneInfo("Asia/Shanghai")
    assert reply.content.decode() == (
        f"---\nAIGC: {json.dumps(aigc)}\n---\n\n> {label}\n"
        f"\n# 你好\n\n{conversation.created_at.astimezone(zone):%Y-%m-%d %H:%M}\n"
        "\n## Question\n\n你好\n\n## AI-generated answer (m)\n\n你好！\n\n- 一\n"
    )
    told = get(client, f"conversations/{conversation.pk}/export", {"format": "json"}).json()
    [said] = messages_of(conversation)
    assert (told["label"], told["AIGC"]) == (label, aigc)
    assert told["conversations"] == [
        {
            "id": str(conversation.pk),
            "title": "你好",
            "created_at": conversation.created_at.isoformat(),
            "messages": [
                {
                    "id": str(said.pk),
                    "asked_at": said.created_at.isoformat(),
                    "question": "你好",
                    "answer": {"model": "m", "text": "你好！\n\n- 一", "ai_generated": True, "state": "done"},
                }
            ],
        }
    ]


def test_all_conversations_as_a_file() -> None:
    tenant = make_tenant(language="zh-hans")
    user = make_user(tenant)
    client = client_of(tenant, user)
    assert get(client, "export", {"format": "json"}).json()["conversations"] == []
    first = say(user, "a", "b")
    say(user, "c")
    go_on(first, "d", answers=("",), state="failed")
    told = get(client, "export", {"format": "json"}).json()
    said = [[row["question"] for row in conversation["messages"]] for conversation in told["conversations"]]
    assert said == [["a", "b", "d"], ["c"]]
    assert get(client, "export").content.decode().count("\n## ") == 8
    assert get(client, "export", {"format": "pdf"}).status_code == 400


def test_an_opinion_is_kept_once_and_taken_back() -> None:
    tenant = make_tenant()
    user = make_user(tenant)
    [said] = messages_of(say(user, "a"))
    client, path = client_of(tenant, user), f"messages/{said.pk}/feedback"
    for rating, reason in (("up", ""), ("down", "错了")):
        reply = post(client, path, {"rating": rating, "reason": reason}).json()["data"]
        assert reply == {"rating": rating, "reason": reason}
        assert get(client, f"messages/{said.pk}").json()["data"]["feedback"] == rating
    with scope.tenant(tenant.pk):
        assert list(Feedback.objects.values_list("rating", "reason")) == [("down", "错了")]
    assert post(client, path, {"rating": ""}).json()["data"] is None
    assert get(client, f"conversations/{said.conversation_id}/messages").json()["data"][0]["feedback"] is None
    assert post(client, path, {"rating": "sideways"}).status_code == 400


def test_a_report_keeps_what_was_said() -> None:
    tenant = make_tenant()
    user = make_user(tenant)
    conversation = say(user, "a")
    [said] = messages_of(conversation)
    client = client_of(tenant, user)
    body = {"category": "untrue", "detail": "Not so."}
    assert post(client, f"messages/{said.pk}/report", body).json() == {"code": 1, "msg": "ok", "data": None}
    assert post(client, f"messages/{said.pk}/report", {"category": "boring"}).status_code == 400
    post(client, f"conversations/{conversation.pk}/delete")
    with scope.tenant(tenant.pk):
        kept = list(Report.objects.values_list("reporter", "category", "detail", "question", "answer", "state"))
    assert kept == [(user.pk, "untrue", "Not so.", "a", "re: a", "open")]


def test_queries_do_not_grow_with_the_rows() -> None:
    tenant = make_tenant()
    user = make_user(tenant)
    client = client_of(tenant, user)
    assert get(client, "conversations").status_code == 200  # the first request finds the tenant
    counts: dict[str, set[int]] = {}
    for rows in (1, 3):
        for number in range(rows):
            conversation = say(user, *(f"spring {number} {turn}" for turn in range(rows)))
        paths = ("conversations", "messages", "search?q=spring", "export?format=json", "export")
        for path in paths:
            asked = f"conversations/{conversation.pk}/messages" if path == "messages" else path
            with CaptureQueriesContext(connection) as queries:
                assert get(client, asked).status_code == 200
            counts.setdefault(path, set()).add(len(queries))
    assert {path: len(seen) for path, seen in counts.items()} == dict.fromkeys(counts, 1)
