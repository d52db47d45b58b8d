"""A user's page for staff, and conversations: whose they are, who may look, and what a look leaves."""

import re
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.db.models import TextField
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing import by_hand, ledger
from billing.audit import audit_tenant
from billing.models import Transfer
from billing.tests.conftest import Shop, open_shop
from chat.admin_people import MessageAdmin
from chat.models import Conversation, ConversationLook, Message
from chat.tests.files import picture
from tenants import avatars, scope
from tenants.errors import ProductError
from tenants.models import Avatar, EndUser
from tests.factories import YUAN, credit, host_of, make_operator, make_plan, make_staff, make_token, order_plan, pay

SECRET = "what nobody else should read"

pytestmark = pytest.mark.django_db


def talk(shop: Shop, user: EndUser) -> Conversation:
    with scope.tenant(shop.tenant.pk):
        conversation = Conversation.objects.create(tenant=shop.tenant, user=user, title=SECRET)
        Message.objects.create(
            tenant=shop.tenant,
            user=user,
            conversation=conversation,
            offer_slug="m",
            question=SECRET,
            answer=f"answer to {SECRET}",
            state="done",
        )
    return conversation


def busy_shop() -> Shop:
    shop = open_shop()
    with scope.tenant(shop.tenant.pk):
        EndUser.objects.filter(pk=shop.user.pk).update(nickname="Vera", phone=f"139{shop.user.pk:08d}")
        shop.user.refresh_from_db()
    credit(shop.user, 12_340_000)
    shop.settle(shop.admit())
    pay(order_plan(shop.user, make_plan(shop.tenant)))
    talk(shop, shop.user)
    return shop


@pytest.fixture
def ours() -> Shop:
    return busy_shop()


@pytest.fixture
def theirs() -> Shop:
    return busy_shop()


def client_of(shop: Shop, role: str = "owner") -> Client:
    client = Client(headers={"host": host_of(shop.tenant)})
    client.force_login(make_staff(shop.tenant, role=role))
    return client


def operator() -> Client:
    client = Client(headers={"host": "localhost"})
    client.force_login(make_operator())
    return client


def user_page(user: EndUser, action: str = "change", site: str = "admin") -> str:
    return f"/{site}/tenants/enduser/{user.pk}/{action}/"


def conversation_page(shop: Shop, site: str = "admin") -> str:
    with scope.tenant(shop.tenant.pk):
        return f"/{site}/chat/conversation/{Conversation.objects.get().pk}/change/"


def looks(shop: Shop) -> list[tuple[str, str]]:
    with scope.tenant(shop.tenant.pk):
        return list(ConversationLook.objects.order_by("pk").values_list("staff_name", "reason"))


# --- finding, and the page ---


@pytest.mark.parametrize("by", ["nickname", "phone", "id", "username"])
def test_a_user_is_found(ours: Shop, by: str) -> None:
    value = str(getattr(ours.user, by))
    page = client_of(ours, "support").get("/admin/tenants/enduser/", {"q": value})
    assert [row.pk for row in page.context["cl"].result_list] == [ours.user.pk]


def test_another_tenants_user_is_not_found(ours: Shop, theirs: Shop) -> None:
    client = client_of(ours)
    for value in map(str, (theirs.user.pk, theirs.user.phone, theirs.user.username)):
        page = client.get("/admin/tenants/enduser/", {"q": value})
        assert [row.pk for row in page.context["cl"].result_list] == []
    for action in ("change", "block", "unblock", "credit"):
        answer = client.get(user_page(theirs.user, action))
        assert answer.status_code in {302, 404}
    assert client.post(user_page(theirs.user, "block"), {"reason": "a reason"}).status_code == 404
    assert client.post(conversation_page(theirs), {"reason": "a reason"}).status_code == 404
    assert client.get(conversation_page(theirs)).status_code == 404
    with scope.tenant(theirs.tenant.pk):
        assert EndUser.objects.get(pk=theirs.user.pk).is_active is True
    assert looks(theirs) == []


@pytest.mark.parametrize(
    ("role", "parts"),
    [
        ("owner", ["Conversations", "Orders", "Ledger", "Answers"]),
        ("finance", ["Orders", "Ledger", "Answers"]),
        ("support", ["Conversations", "Orders", "Answers"]),
    ],
)
def test_the_page_has_what_the_role_may_see(ours: Shop, role: str, parts: list[str]) -> None:
    client = client_of(ours, role)
    page = client.get(user_page(ours.user)).content.decode()
    found = re.findall(r'<h2 [^>]*><a class="underline" href="([^"]+)">([^<]+)</a>', page)
    assert [title for _href, title in found] == parts
    assert ("¥12.335" in page, SECRET in page) == (True, False)
    lines = re.findall(r'<a class="bn-line [^"]*" href="([^"]+)"', page)
    assert {href: client.get(href).status_code for href in lines} == dict.fromkeys(lines, 200)
    for href, title in found:
        listed = client.get(href.replace("&amp;", "&"))
        assert (title, listed.status_code, listed.context["cl"].result_count > 0) == (title, 200, True)


def test_content_staff_see_no_users(ours: Shop) -> None:
    client = client_of(ours, "content")
    assert client.get(user_page(ours.user)).status_code == 403
    assert client.get(conversation_page(ours)).status_code == 404


def test_the_page_takes_as_many_queries_for_many_rows_as_for_few(ours: Shop) -> None:
    client = client_of(ours)
    client.get(user_page(ours.user))
    with CaptureQueriesContext(connection) as few:
        client.get(user_page(ours.user))
    for _ in range(4):
        talk(ours, ours.user)
        credit(ours.user, 1_000_000)
        shop_order = order_plan(ours.user, make_plan(ours.tenant))
        pay(shop_order)
        ours.settle(ours.admit())
    with CaptureQueriesContext(connection) as many:
        client.get(user_page(ours.user))
    assert len(many) == len(few)


# --- conversations ---


@pytest.mark.parametrize("role", ["owner", "support"])
def test_a_conversation_is_shown_for_a_reason_and_each_look_leaves_a_row(ours: Shop, role: str) -> None:
    client = client_of(ours, role)
    path = conversation_page(ours)
    for asked in (client.get(path), client.post(path, {"reason": ""}), client.post(path, {"reason": "  x  "})):
        assert (asked.status_code, SECRET in asked.content.decode()) == (200, False)
    assert looks(ours) == []
    for reason in ("the user asked us to", "once more"):
        shown = client.post(path, {"reason": reason})
        assert (shown.status_code, f"answer to {SECRET}" in shown.content.decode()) == (200, True)
        assert "no-store" in shown["Cache-Control"].split(", ")
    assert [reason for _name, reason in looks(ours)] == ["the user asked us to", "once more"]
    assert LogEntry.objects.filter(change_message__contains="once more").count() == 1


def test_the_operator_gives_a_reason_too(ours: Shop) -> None:
    client = operator()
    path = conversation_page(ours, "platform")
    assert SECRET not in client.get(path).content.decode()
    assert SECRET in client.post(path, {"reason": "a court asks"}).content.decode()
    assert [reason for _name, reason in looks(ours)] == ["a court asks"]


@pytest.mark.parametrize("page", ["chat/conversation/", "chat/message/", "tenants/enduser/"])
def test_no_list_shows_what_was_said(ours: Shop, page: str) -> None:
    for client, site in ((client_of(ours), "admin"), (operator(), "platform")):
        assert SECRET not in client.get(f"/{site}/{page}").content.decode()
        searched = client.get(f"/{site}/{page}", {"q": SECRET})
        assert searched.context["cl"].result_count == 0


def test_a_messages_own_page_does_not_show_it(ours: Shop) -> None:
    with scope.tenant(ours.tenant.pk):
        message = Message.objects.get()
    for client, site in ((client_of(ours, "support"), "admin"), (operator(), "platform")):
        answer = client.get(f"/{site}/chat/message/{message.pk}/change/")
        assert (answer.status_code, SECRET in answer.content.decode()) == (200, False)


@pytest.mark.parametrize("role", ["finance", "content"])
def test_other_roles_see_no_conversation(ours: Shop, role: str) -> None:
    answer = client_of(ours, role).post(conversation_page(ours), {"reason": "a reason"})
    assert (answer.status_code, looks(ours)) == (404, [])


def test_owners_see_who_looked_and_nobody_changes_it(ours: Shop, theirs: Shop) -> None:
    client_of(ours, "support").post(conversation_page(ours), {"reason": "because of a report"})
    client_of(theirs, "support").post(conversation_page(theirs), {"reason": "another reason"})
    page = client_of(ours).get("/admin/chat/conversationlook/").content.decode()
    assert ("because of a report" in page, "another reason" in page) == (True, False)
    assert client_of(ours, "support").get("/admin/chat/conversationlook/").status_code == 403
    with scope.tenant(ours.tenant.pk):
        look = ConversationLook.objects.get()
    for client, site in ((client_of(ours), "admin"), (operator(), "platform")):
        assert client.post(f"/{site}/chat/conversationlook/{look.pk}/delete/", {"post": "yes"}).status_code == 403
        assert client.post(f"/{site}/chat/conversationlook/{look.pk}/change/", {"reason": "x"}).status_code == 403
    assert [reason for _name, reason in looks(ours)] == ["because of a report"]


# --- blocking ---


@pytest.mark.parametrize("role", ["owner", "support"])
def test_a_user_is_blocked_at_once_and_let_in_again(ours: Shop, role: str) -> None:
    token = make_token(ours.user)
    users = Client(headers={"host": host_of(ours.tenant), "authorization": f"Bearer {token}"})
    client = client_of(ours, role)
    assert users.get("/api/billing/balance").status_code == 200
    assert client.post(user_page(ours.user, "block"), {"reason": ""}).status_code == 200
    assert users.get("/api/billing/balance").status_code == 200
    assert client.post(user_page(ours.user, "block"), {"reason": "sends spam"}).status_code == 302
    assert users.get("/api/billing/balance").status_code == 401
    assert client.post(user_page(ours.user, "unblock"), {"reason": "a mistake"}).status_code == 302
    assert users.get("/api/billing/balance").status_code == 200
    said = LogEntry.objects.filter(object_id=str(ours.user.pk)).order_by("pk").values_list("change_message", flat=True)
    assert [("sends spam" in text, "a mistake" in text) for text in said] == [(True, False), (False, True)]


@pytest.mark.parametrize("role", ["finance", "content"])
def test_other_roles_block_nobody(ours: Shop, role: str) -> None:
    answer = client_of(ours, role).post(user_page(ours.user, "block"), {"reason": "a reason"})
    with scope.tenant(ours.tenant.pk):
        assert (answer.status_code, EndUser.objects.get(pk=ours.user.pk).is_active) == (403, True)


# --- the avatar ---


def give_avatar(shop: Shop) -> str:
    with scope.tenant(shop.tenant.pk):
        avatars.keep(user=shop.user, data=picture())
        return avatars.data_url(Avatar.objects.get())


def has_avatar(shop: Shop) -> bool:
    with scope.tenant(shop.tenant.pk):
        return avatars.of(shop.user) is not None


@pytest.mark.parametrize("role", ["owner", "support"])
def test_a_users_picture_is_shown_small_and_removed_with_a_reason(ours: Shop, role: str) -> None:
    client = client_of(ours, role)
    offers = f'href="{user_page(ours.user, "remove-avatar")}"'
    page = client.get(user_page(ours.user)).content.decode()
    assert ("data:image/jpeg" in page, offers in page) == (False, False)
    shown = give_avatar(ours)
    page = client.get(user_page(ours.user)).content.decode()
    assert (shown in page, offers in page) == (True, True)
    assert client.post(user_page(ours.user, "remove-avatar"), {"reason": ""}).status_code == 200
    assert has_avatar(ours) is True
    for reason in ("it was reported", "once more"):
        assert client.post(user_page(ours.user, "remove-avatar"), {"reason": reason}).status_code == 302
    assert has_avatar(ours) is False
    said = LogEntry.objects.filter(object_id=str(ours.user.pk)).order_by("pk").values_list("change_message", flat=True)
    assert list(said) == ["Avatar removed. Reason: it was reported", "There was no avatar. Reason: once more"]


def test_the_operator_sees_and_removes_it_too(ours: Shop) -> None:
    shown = give_avatar(ours)
    assert shown in operator().get(user_page(ours.user, site="platform")).content.decode()
    asked = {"reason": "a court asks"}
    assert operator().post(user_page(ours.user, "remove-avatar", "platform"), asked).status_code == 302
    assert has_avatar(ours) is False


def test_nobody_else_removes_it(ours: Shop, theirs: Shop) -> None:
    give_avatar(ours)
    answers = [
        client.post(user_page(ours.user, "remove-avatar"), {"reason": "a reason"}).status_code
        for client in (client_of(ours, "finance"), client_of(ours, "content"), client_of(theirs))
    ]
    assert (answers, has_avatar(ours)) == ([403, 403, 404], True)


# --- credit ---


def give(shop: Shop, staff: Any, yuan: int, **more: Any) -> Transfer:
    asked = {"kind": "gift", "number": uuid4(), "reason": "a gift", **more}
    return by_hand.credit_by_hand(user=shop.user, amount=yuan * YUAN, staff=staff, **asked)


def gift_of(shop: Shop) -> int:
    return ledger.balances(tenant_id=shop.tenant.pk, user_id=shop.user.pk).gift


def test_a_members_credits_of_a_day_have_a_limit(ours: Shop, settings: Any) -> None:
    settings.STAFF_CREDIT_YUAN_PER_DAY = 100
    clerk, other = make_staff(ours.tenant, role="finance"), make_staff(ours.tenant)
    number = uuid4()
    give(ours, clerk, 60, number=number)
    give(ours, clerk, 60, number=number)  # the same, once
    give(ours, clerk, 40, kind="gift")
    with pytest.raises(ProductError) as refused:
        give(ours, clerk, 1)
    assert (refused.value.type, gift_of(ours)) == ("staff_credit_limit", 100 * YUAN)
    give(ours, other, 100)
    give(ours, make_operator(), 500)
    assert gift_of(ours) == 700 * YUAN
    assert audit_tenant(tenant_id=ours.tenant.pk) == []


def test_the_form_says_what_is_left(ours: Shop, settings: Any) -> None:
    settings.STAFF_CREDIT_YUAN_PER_DAY = 100
    form = {"yuan": "101", "kind": "gift", "reason": "a gift", "number": str(uuid4())}
    answer = client_of(ours, "finance").post(user_page(ours.user, "credit"), form)
    assert (answer.status_code, "have ¥100.00 left today" in answer.content.decode(), gift_of(ours)) == (200, True, 0)


@pytest.mark.parametrize("role", ["support", "content"])
def test_other_roles_give_nothing(ours: Shop, role: str) -> None:
    form = {"yuan": "1", "kind": "gift", "reason": "a gift", "number": str(uuid4())}
    answer = client_of(ours, role).post(user_page(ours.user, "credit"), form)
    assert (answer.status_code, gift_of(ours)) == (403, 0)


def test_the_page_of_a_message_shows_no_text_of_the_conversation() -> None:
    texts = {field.name for field in Message._meta.concrete_fields if type(field) is TextField}
    assert texts <= set(MessageAdmin.exclude) == {*texts, "attachments"}
