"""Conversations in the database, as chats leave them, and a client of the JSON API for who had them."""

from typing import Any

from django.test import Client
from django.utils import timezone

from chat.models import Conversation, Message
from tenants import scope
from tenants.models import EndUser, Tenant
from tests.factories import host_of, make_token


def say(user: EndUser, *questions: str, answers: tuple[str, ...] = (), **fields: Any) -> Conversation:
    """Return a new conversation with these questions, each answered by "re: " and itself unless told otherwise."""
    with scope.tenant(user.tenant_id):
        conversation = Conversation.objects.create(tenant_id=user.tenant_id, user=user, title=questions[0][:120])
    go_on(conversation, *questions, answers=answers, **fields)
    return conversation


def go_on(conversation: Conversation, *questions: str, answers: tuple[str, ...] = (), **fields: Any) -> None:
    """Add turns to a conversation, each after the one before."""
    said = dict(zip(questions, answers, strict=False))
    told: dict[str, Any] = {"offer_slug": "m", "state": Message.State.DONE, "ended_at": timezone.now(), **fields}
    with scope.tenant(conversation.tenant_id):
        last = Message.objects.filter(conversation=conversation).order_by("-created_at", "-pk").first()
        for question in questions:
            last = Message.objects.create(
                tenant_id=conversation.tenant_id,
                user_id=conversation.user_id,
                conversation=conversation,
                parent=last,
                question=question,
                answer=said.get(question, f"re: {question}"),
                **told,
            )


def messages_of(conversation: Conversation) -> list[Message]:
    """Return what was said in a conversation, the oldest first."""
    with scope.tenant(conversation.tenant_id):
        return list(Message.objects.filter(conversation=conversation).order_by("created_at", "pk"))


def client_of(tenant: Tenant, user: EndUser) -> Client:
    """Return a client with a token of `user`."""
    return Client(headers={"Host": host_of(tenant), "Authorization": f"Bearer {make_token(user)}"})


def stranger_on(tenant: Tenant) -> Client:
    """Return a client without a token."""
    return Client(headers={"Host": host_of(tenant)})


def post(client: Client, path: str, body: dict[str, Any] | None = None) -> Any:
    """Post JSON to a path below /api/chat/."""
    return client.post(f"/api/chat/{path}", body or {}, content_type="application/json")


def get(client: Client, path: str, query: dict[str, Any] | None = None) -> Any:
    """Return what a path below /api/chat/ answers."""
    return client.get(f"/api/chat/{path}", query or {})
