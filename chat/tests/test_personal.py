"""What was said goes along with its user, and is erased when they go."""

import pytest

from chat.keys import make_key as make_api_key
from chat.models import ApiKey, Conversation, Feedback, Message, Report, SearchEntry, ShareLink
from chat.tasks import erase_deleted
from chat.tests.talk import client_of, post, say
from tenants import scope
from tests.factories import make_tenant, make_user

pytestmark = pytest.mark.django_db

RECEIPT = {"model": "m", "charge": "1"}


def test_the_archive_has_ones_own_conversations() -> None:
    tenant, other = make_tenant(), make_tenant()
    alice, bob, stranger = make_user(tenant), make_user(tenant), make_user(other)
    say(alice, "what is a banyan", receipt=RECEIPT)
    say(bob, "the secret of bob")
    say(stranger, "the secret of the stranger")
    client = client_of(tenant, alice)
    told = client.get("/api/auth/account/archive").json()
    [conversation] = told["conversations"]
    assert (conversation["title"], [row["question"] for row in conversation["messages"]]) == (
        "what is a banyan",
        ["what is a banyan"],
    )
    assert [row["receipt"] for row in told["receipts"]] == [RECEIPT]
    assert "secret" not in str(told)
    assert told["label"]


def test_leaving_erases_what_was_said_at_once_and_keeps_receipts() -> None:
    tenant = make_tenant()
    alice, bob = make_user(tenant), make_user(tenant)
    conversation = say(alice, "what is a banyan", receipt=RECEIPT)
    kept = say(bob, "what is a banyan to bob")
    client = client_of(tenant, alice)
    with scope.tenant(tenant.pk):
        message = Message.objects.get(conversation=conversation)
        make_api_key(user=alice, name="my script")
    post(client, f"messages/{message.pk}/feedback", {"rating": "up", "reason": "nice"})
    post(client, f"messages/{message.pk}/report", {"category": "other", "detail": "hm"})
    post(client, f"conversations/{conversation.pk}/share")
    answer = client.post("/api/auth/account/delete", {}, content_type="application/json").json()
    assert answer["code"] == 1, answer
    with scope.tenant(tenant.pk):
        gone = Message.objects.get(pk=message.pk)
        assert (gone.question, gone.answer, gone.receipt) == ("", "", RECEIPT)
        row = Conversation.objects.get(pk=conversation.pk)
        assert (row.title, row.erased_at is not None) == ("", True)
        assert (Feedback.objects.count(), SearchEntry.objects.filter(user=alice).count()) == (0, 0)
        assert Report.objects.get().reporter is None
        assert ShareLink.objects.get().revoked_at is not None
        key = ApiKey.objects.get()
        assert (key.name, key.revoked_at is not None) == ("", True)
        assert Message.objects.get(conversation=kept).question == "what is a banyan to bob"


def test_what_was_asked_in_the_moment_of_leaving_is_swept() -> None:
    tenant = make_tenant()
    alice, bob = make_user(tenant), make_user(tenant)
    answer = client_of(tenant, alice).post("/api/auth/account/delete", {}, content_type="application/json").json()
    assert answer["code"] == 1
    late, kept = say(alice, "one more thing"), say(bob, "mine")
    assert erase_deleted() == 1
    with scope.tenant(tenant.pk):
        said = Message.objects.get(conversation=late)
        assert (said.question, Message.objects.get(conversation=kept).question) == ("", "mine")
