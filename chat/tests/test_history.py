"""The JSON API of history: one's own, and nobody else's."""

import pytest
from django.test import Client

from chat.models import Conversation, Message
from tenants import scope
from tenants.models import EndUser, Tenant
from tests.factories import host_of, make_tenant, make_token, make_user

pytestmark = pytest.mark.django_db


def say(user: EndUser, *questions: str) -> Conversation:
    with scope.tenant(user.tenant_id):
        conversation = Conversation.objects.create(tenant_id=user.tenant_id, user=user, title=questions[0])
        for question in questions:
            Message.objects.create(
                tenant_id=user.tenant_id,
                user=user,
                conversation=conversation,
                offer_slug="m",
                question=question,
                answer=f"re: {question}",
                state=Message.State.DONE,
            )
    return conversation


def client_of(tenant: Tenant, user: EndUser) -> Client:
    return Client(headers={"Host": host_of(tenant), "Authorization": f"Bearer {make_token(user)}"})


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
