"""Every endpoint of history and roles, tried by another user of the tenant and by another tenant's user."""

from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client

from chat.models import Conversation, Feedback, Report, ShareLink
from chat.tasks import index_messages
from chat.tests.talk import client_of, get, messages_of, post, say, stranger_on
from chat.tests.test_shelf import announce, make_category, make_role
from tenants import scope
from tenants.models import EndUser, Tenant
from tests.factories import make_tenant, make_user

pytestmark = pytest.mark.django_db

SECRET = "spring-secret"  # JSON has Chinese escaped
REPORT = {"category": "other"}


@dataclass(frozen=True, kw_only=True)
class Alices:
    """What Alice has, that nobody else may see or touch."""

    tenant: Tenant
    user: EndUser
    paths: dict[str, str]

    def standing(self) -> list[Any]:
        """Return every row that someone else might have changed."""
        with scope.tenant(self.tenant.pk):
            conversations = list(Conversation.objects.values("title", "is_pinned", "is_archived", "deleted_at"))
            links = list(ShareLink.objects.values("revoked_at"))
            return [conversations, links, list(Feedback.objects.values("rating")), Report.objects.count()]


@pytest.fixture
def alices() -> Alices:
    tenant = make_tenant()
    user = make_user(tenant)
    conversation = say(user, f"{SECRET} 春天的秘密")
    [said] = messages_of(conversation)
    index_messages()
    client = client_of(tenant, user)
    link = post(client, f"conversations/{conversation.pk}/share").json()["data"]
    post(client, f"messages/{said.pk}/feedback", {"rating": "up", "reason": SECRET})
    make_role(tenant, "hers", name=SECRET, category=make_category(tenant, "secret-shelf"))
    ids = {"c": conversation.pk, "m": said.pk, "s": link["id"], "t": link["token"], "a": announce(tenant, SECRET)}
    return Alices(tenant=tenant, user=user, paths={key: str(value) for key, value in ids.items()})


@pytest.fixture(params=["another user", "another tenant's user"])
def other(request: pytest.FixtureRequest, alices: Alices) -> Client:
    tenant = alices.tenant if request.param == "another user" else make_tenant()
    user = make_user(tenant)
    say(user, "of the other")
    return client_of(tenant, user)


HERS = [
    ("GET", "conversations/{c}", {}),
    ("POST", "conversations/{c}", {"title": "mine now", "is_pinned": True}),
    ("POST", "conversations/{c}/delete", {}),
    ("GET", "conversations/{c}/messages", {}),
    ("GET", "conversations/{c}/export", {}),
    ("GET", "conversations/{c}/export?format=json", {}),
    ("POST", "conversations/{c}/share", {}),
    ("GET", "messages/{m}", {}),
    ("POST", "messages/{m}/feedback", {"rating": "down"}),
    ("POST", "messages/{m}/feedback", {"rating": ""}),
    ("POST", "messages/{m}/report", REPORT),
    ("POST", "shares/{s}/revoke", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), HERS)
def test_what_is_hers_does_not_exist_for_others(
    alices: Alices, other: Client, method: str, path: str, body: dict[str, Any]
) -> None:
    before = alices.standing()
    asked = path.format(**alices.paths)
    reply = get(other, asked) if method == "GET" else post(other, asked, body)
    assert (reply.status_code, reply.json()["code"], SECRET in reply.content.decode()) == (404, 404, False)
    assert alices.standing() == before
    nobody = stranger_on(alices.tenant)
    unknown = get(nobody, asked) if method == "GET" else post(nobody, asked, body)
    assert (unknown.status_code, unknown.json()["code"]) == (401, -1)
    assert alices.standing() == before


@pytest.mark.parametrize(
    "path", ["conversations", "search?q=秘密", "search?q=密", "export", "export?format=json", "shares"]
)
def test_lists_hold_ones_own(alices: Alices, other: Client, path: str) -> None:
    hers = get(client_of(alices.tenant, alices.user), path).content.decode()
    theirs = get(other, path)
    assert (SECRET in hers, theirs.status_code, SECRET in theirs.content.decode()) == (True, 200, False)
    assert get(stranger_on(alices.tenant), path).status_code == 401


@pytest.mark.parametrize("path", ["roles", "roles/categories", "announcements"])
def test_what_a_tenant_lays_out_is_its_own_users(alices: Alices, path: str) -> None:
    colleague, elsewhere = make_user(alices.tenant), make_tenant()
    seen = [get(client_of(user.tenant, user), path).json()["data"] for user in (colleague, make_user(elsewhere))]
    assert [len(rows) for rows in seen] == [1, 0]
    assert get(stranger_on(alices.tenant), path).status_code == 401


def test_a_link_of_another_tenant_opens_nothing_here(alices: Alices) -> None:
    reader, elsewhere = stranger_on(alices.tenant), stranger_on(make_tenant())
    report = {**REPORT, "message_id": alices.paths["m"]}
    path = f"shared/{alices.paths['t']}"
    assert [get(client, path).status_code for client in (reader, elsewhere)] == [200, 404]
    assert [post(client, f"{path}/report", report).status_code for client in (elsewhere, reader)] == [404, 200]
    with scope.tenant(alices.tenant.pk):
        assert Report.objects.count() == 1


def test_an_announcement_of_another_tenant_cannot_be_read(alices: Alices) -> None:
    elsewhere = make_tenant()
    path = f"announcements/{alices.paths['a']}/read"
    statuses = [post(client_of(user.tenant, user), path).status_code for user in (make_user(elsewhere), alices.user)]
    assert statuses == [404, 200]
