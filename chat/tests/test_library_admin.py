"""The admin of assistants, chat rules, announcements, reports and shared links: who may do what, in whose rows."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import translation

from chat.models import Announcement, ChatRules, PlatformAnnouncement, Report, Role, RoleCategory, ShareLink
from chat.tests.talk import client_of, get, messages_of, post, say, stranger_on
from chat.tests.test_shelf import announce, make_category, make_role
from tenants import scope
from tenants.models import Tenant
from tests.factories import host_of, make_operator, make_staff, make_tenant, make_user

pytestmark = pytest.mark.django_db

ROLE = {
    "name": "诗人",
    "instructions": "写诗。",
    "position": "1",
    "is_enabled": "on",
    "suggestions": "",
    "opening": "来？",
}
ANNOUNCEMENT = {
    "title": "停机",
    "body": "今晚",
    "starts_at_0": "2026-01-01",
    "starts_at_1": "00:00:00",
    "is_enabled": "on",
}


def desk(tenant: Tenant, role: str) -> Client:
    """Return a client of the tenant's admin, logged in as staff of that role."""
    client = Client(headers={"host": host_of(tenant)})
    client.force_login(make_staff(tenant, role=role))
    return client


def platform() -> Client:
    client = Client(headers={"host": "localhost"})
    client.force_login(make_operator())
    return client


@pytest.mark.parametrize(("role", "status"), [("owner", 302), ("content", 302), ("support", 403), ("finance", 403)])
def test_who_may_write_what_users_see(role: str, status: int) -> None:
    tenant = make_tenant()
    client = desk(tenant, role)
    forms: dict[str, dict[str, str]] = {
        "rolecategory": {"slug": "fun", "name": "娱乐", "position": "1"},
        "role": {**ROLE, "slug": "poet"},
        "chatrules": {"instructions": "礼貌。", "context_turns": "5", "filing_number": "沪-1"},
        "announcement": ANNOUNCEMENT,
    }
    for name, body in forms.items():
        reply = client.post(f"/admin/chat/{name}/add/", body)
        assert (name, reply.status_code) == (name, status), reply.content.decode()[:3000]
    with scope.tenant(tenant.pk):
        models = (RoleCategory, Role, ChatRules, Announcement)
        assert [model.objects.filter(tenant=tenant).count() for model in models] == [int(status == 302)] * 4


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("report", {"owner", "support"}),
        ("sharelink", {"owner", "support"}),
        ("feedback", {"owner", "support", "content"}),
        ("role", {"owner", "support", "content", "finance"}),
    ],
)
def test_who_may_look(path: str, allowed: set[str]) -> None:
    tenant = make_tenant()
    seen = {
        role: desk(tenant, role).get(f"/admin/chat/{path}/").status_code
        for role in ("owner", "support", "content", "finance")
    }
    assert {role for role, status in seen.items() if status == 200} == allowed
    assert set(seen.values()) <= {200, 403}


def errors(reply: Any) -> dict[str, list[str]]:
    with translation.override("en"):
        return {name: [str(f) for f in found] for name, found in reply.context["adminform"].form.errors.items()}


def test_a_slug_and_the_default_are_one_in_a_tenant() -> None:
    tenant, other = make_tenant(), make_tenant()
    make_role(other, "poet", is_default=True)
    client = desk(tenant, "content")
    body = {**ROLE, "slug": "poet", "is_default": "on"}
    assert client.post("/admin/chat/role/add/", body).status_code == 302
    again = client.post("/admin/chat/role/add/", body)
    assert errors(again) == {
        "slug": ["Another row has this slug already."],
        "is_default": ["Another assistant is the default already."],
    }
    with scope.tenant(tenant.pk):
        role = Role.objects.get()
    assert client.post(f"/admin/chat/role/{role.pk}/change/", {**body, "name": "新"}).status_code == 302
    make_category(tenant, "fun")
    category = client.post("/admin/chat/rolecategory/add/", {"slug": "fun", "name": "x", "position": "0"})
    assert errors(category) == {"slug": ["Another row has this slug already."]}


def test_another_tenants_category_is_no_choice() -> None:
    tenant, other = make_tenant(), make_tenant()
    theirs, ours = make_category(other, "theirs-only"), make_category(tenant, "ours-only")
    make_role(other, "their-role", category=theirs)
    make_role(tenant, "our-role", category=ours)
    client = desk(tenant, "owner")
    paths = ("role/add/", "role/", "role/?q=role", "rolecategory/")
    shown = [client.get(f"/admin/chat/{path}", follow=True).content.decode() for path in paths]
    assert [("theirs-only" in page, "their-role" in page) for page in shown] == [(False, False)] * 4
    filtered = client.get("/admin/chat/role/?category__name=theirs-only", follow=True)
    assert "their-role" not in filtered.content.decode()
    reply = client.post("/admin/chat/role/add/", {**ROLE, "slug": "a", "category": str(theirs.pk)})
    assert list(errors(reply)) == ["category"]
    body = {**ROLE, "slug": "a", "tenant": str(tenant.pk), "category": str(theirs.pk)}
    assert errors(platform().post("/platform/chat/role/add/", body)) == {
        "category": ["This category belongs to another tenant."]
    }
    body["category"] = str(ours.pk)
    assert platform().post("/platform/chat/role/add/", body).status_code == 302


def test_what_is_read_or_used_is_not_deleted() -> None:
    tenant = make_tenant()
    used, unused = make_category(tenant, "used"), make_category(tenant, "unused")
    role = make_role(tenant, "r", category=used)
    announced = announce(tenant, "a").removeprefix("tenant-")
    client = desk(tenant, "owner")
    rows = (("role", role.pk), ("announcement", announced), ("rolecategory", used.pk), ("rolecategory", unused.pk))
    replies = [client.post(f"/admin/chat/{name}/{pk}/delete/", {"post": "yes"}).status_code for name, pk in rows]
    assert replies == [403, 403, 403, 302]


def test_a_tenant_has_one_set_of_rules() -> None:
    tenant = make_tenant()
    client = desk(tenant, "content")
    assert client.post("/admin/chat/chatrules/add/", {"instructions": "a"}).status_code == 302
    assert client.post("/admin/chat/chatrules/add/", {"instructions": "b"}).status_code == 403


def test_an_announcement_ends_after_it_starts() -> None:
    client = desk(make_tenant(), "content")
    wrong = {**ANNOUNCEMENT, "ends_at_0": "2025-12-31", "ends_at_1": "00:00:00"}
    reply = client.post("/admin/chat/announcement/add/", wrong)
    assert errors(reply) == {"__all__": ["An announcement ends after it starts."]}


def test_the_operator_announces_to_everybody() -> None:
    assert platform().post("/platform/chat/platformannouncement/add/", ANNOUNCEMENT).status_code == 302
    tenant = make_tenant()
    [told] = get(client_of(tenant, make_user(tenant)), "announcements").json()["data"]
    assert (told["source"], told["title"]) == ("platform", "停机")
    assert desk(tenant, "owner").get("/admin/chat/platformannouncement/").status_code == 404
    with scope.platform("a test"):
        assert PlatformAnnouncement.objects.count() == 1


def make_report(tenant: Tenant, question: str = "bad") -> Report:
    user = make_user(tenant)
    [said] = messages_of(say(user, question))
    with scope.tenant(tenant.pk):
        return Report.objects.create(
            tenant=tenant, reporter=user, message=said, category="untrue", question=question, answer="x"
        )


def act(client: Client, model: str, action: str, *rows: Any) -> Any:
    body = {"action": action, "_selected_action": [str(row.pk) for row in rows]}
    return client.post(f"/admin/chat/{model}/", body, follow=True)


def test_support_deals_with_reports_once() -> None:
    tenant, other = make_tenant(), make_tenant()
    first, second, theirs = make_report(tenant), make_report(tenant), make_report(other)
    client = desk(tenant, "support")
    assert client.post(f"/admin/chat/report/{first.pk}/change/", {"note": "seen", "state": "upheld"}).status_code == 302
    assert client.post(f"/admin/chat/report/{theirs.pk}/change/", {"note": "seen"}).status_code == 404
    page = act(client, "report", "uphold", first, theirs).content.decode()
    assert "1 report was closed." in page
    act(client, "report", "reject", first, second)
    with scope.platform("a test"):
        rows = list(Report.objects.order_by("pk").values_list("state", "note"))
        staff = {
            row.handled_by_id is not None and row.handled_at is not None for row in Report.objects.exclude(state="open")
        }
    assert (rows, staff) == ([("upheld", "seen"), ("rejected", ""), ("open", "")], {True})
    assert LogEntry.objects.filter(object_id=str(first.pk), change_message="state upheld").count() == 1
    assert act(desk(tenant, "content"), "report", "uphold", second).status_code == 403


def test_support_ends_links() -> None:
    tenant, other = make_tenant(), make_tenant()
    tokens = {}
    for owner in (tenant, other):
        user = make_user(owner)
        conversation = say(user, "a")
        link = post(client_of(owner, user), f"conversations/{conversation.pk}/share").json()["data"]
        tokens[owner.pk] = link["token"]
    with scope.platform("a test"):
        links = list(ShareLink.objects.order_by("pk"))
    act(desk(tenant, "support"), "sharelink", "revoke", *links)
    statuses = [get(stranger_on(owner), f"shared/{tokens[owner.pk]}").status_code for owner in (tenant, other)]
    assert statuses == [404, 200]


def test_support_ends_the_links_to_what_was_reported() -> None:
    tenant = make_tenant()
    user = make_user(tenant)
    conversation, fine = say(user, "bad"), say(user, "fine")
    tokens = [
        post(client_of(tenant, user), f"conversations/{row.pk}/share").json()["data"]["token"]
        for row in (conversation, fine)
    ]
    reader = stranger_on(tenant)
    said = {"message_id": str(messages_of(conversation)[0].pk), "category": "illegal"}
    assert post(reader, f"shared/{tokens[0]}/report", said).status_code == 200
    with scope.tenant(tenant.pk):
        report = Report.objects.get()
    assert "1 link was ended." in act(desk(tenant, "support"), "report", "revoke_share", report).content.decode()
    assert [get(reader, f"shared/{token}").status_code for token in tokens] == [404, 200]


def test_reports_are_found_and_filtered_within_the_tenant() -> None:
    tenant, other = make_tenant(), make_tenant()
    make_report(tenant, "ours-only")
    make_report(other, "theirs-only")
    client = desk(tenant, "support")
    for query, count in (
        ("", 1),
        ("?q=only", 1),
        ("?q=nothing", 0),
        ("?state__exact=open", 1),
        ("?category__exact=hate", 0),
    ):
        page = client.get(f"/admin/chat/report/{query}")
        assert (query, page.context["cl"].result_count, "theirs" in page.content.decode()) == (query, count, False)
