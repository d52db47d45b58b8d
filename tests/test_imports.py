"""Rows from a file: a preview writes nothing, a confirmed one all or nothing, and never another tenant's rows."""

import csv
import html
import io
import re
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import translation
from pytest_django import Settings

from billing import audit, ledger
from billing.models import RedeemBatch, RedeemCode
from chat.models import Role, RoleCategory
from chat.moderation.models import ModerationWord
from tenants import imports, scope
from tenants.imports import Column, SheetError, read_lines, read_text
from tenants.models import EndUser, Membership, Tenant
from tests.factories import YUAN, host_of, make_operator, make_staff, make_tenant, make_user

pytestmark = pytest.mark.django_db

PEOPLE, WORDS, ROLES, BATCHES = (
    "tenants/enduser",
    "chat/moderationword",
    "chat/role",
    "billing/redeembatch",
)
HEADS = {
    PEOPLE: "nickname,phone,email,gift,reason",
    WORDS: "word,category,action",
    ROLES: "slug,name,category,description,opening,suggestions,instructions",
    BATCHES: "name,yuan,count,kind,expires_at,per_user_limit",
}


@pytest.fixture(autouse=True)
def _keys(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


def staff_of(tenant: Tenant, role: str = "owner") -> Client:
    client = Client(headers={"host": host_of(tenant), "accept-language": "en"})
    client.force_login(make_staff(tenant, role=role))
    return client


def upload(client: Client, kind: str, *lines: str, head: str = "") -> str:
    """Upload a file; return the page that shows what it would do."""
    text = "\n".join([head or HEADS[kind], *lines])
    file = SimpleUploadedFile("x.csv", text.encode("utf-8-sig"))
    answer = client.post(f"/admin/{kind}/import/", {"file": file})
    assert answer.status_code == 200
    return answer.content.decode()


def counts(page: str) -> tuple[int, ...]:
    """Return what a page says: to add, to change, there already, cannot be taken."""
    said = re.search(r"To add: (\d+)\. To change: (\d+)\. There already: (\d+)\. Cannot be taken: (\d+)\.", page)
    assert said is not None
    return tuple(int(number) for number in said.groups())


def faults(page: str) -> list[str]:
    return re.findall(r"<li class=\"text-red[^>]*>([^<]*)</li>", page)


def confirm(client: Client, kind: str, page: str, **changes: str) -> Any:
    """Confirm what a page shows, as a browser does."""
    sheet = re.search(r'<textarea name="sheet" hidden>(.*?)</textarea>', page, re.DOTALL)
    digest = re.search(r'name="digest" value="([0-9a-f]+)"', page)
    assert sheet is not None
    assert digest is not None
    body = {"sheet": html.unescape(sheet[1]), "digest": digest[1], "confirmed": "yes", **changes}
    return client.post(f"/admin/{kind}/import/", body)


def people(tenant: Tenant) -> list[tuple[str, str | None, str | None]]:
    with scope.tenant(tenant.pk):
        return list(EndUser.objects.order_by("pk").values_list("nickname", "phone", "email"))


def test_users_are_added_and_completed_with_a_gift_once() -> None:
    ours, theirs = make_tenant(), make_tenant()
    make_user(ours, nickname="old", phone="13800000001")
    make_user(theirs, nickname="theirs", phone="13800000002", email="x@theirs.example")
    client = staff_of(ours)
    lines = (
        "Li Lei,138 0000 0002,,5,new year",
        "renamed,13800000001,old@example.com,,",
        "nobody,,,,",
        "twice,13800000002,,,",
        "rich,13800000003,,5,",
        "bad,12,,,",
        "greedy,13800000001,,5,again",
    )
    page = upload(client, PEOPLE, *lines)
    assert counts(page) == (1, 1, 0, 5)
    assert faults(page) == [
        "Line 4: A phone or an e-mail is needed: without one nobody could log in.",
        "Line 5: An earlier line has the same phone or e-mail. Keep one of them.",
        "Line 6: A gift needs a reason.",
        "Line 7: This is not a mobile phone number.",
        "Line 8: An earlier line has the same phone or e-mail. Keep one of them.",
    ]
    assert people(ours) == [("old", "13800000001", None)]  # a preview writes nothing
    assert confirm(client, PEOPLE, page).status_code == 302
    assert people(ours) == [("renamed", "13800000001", "old@example.com"), ("Li Lei", "13800000002", None)]
    assert people(theirs) == [("theirs", "13800000002", "x@theirs.example")]
    with scope.tenant(ours.pk):
        new = EndUser.objects.get(nickname="Li Lei")
        assert ledger.balances(tenant_id=ours.pk, user_id=new.pk).gift == 5 * YUAN
    # Confirmed once more, by a click too many: nothing is left to add, and so it is shown anew.
    again = confirm(client, PEOPLE, page)
    assert (again.status_code, len(people(ours))) == (200, 2)
    with scope.tenant(ours.pk):
        assert ledger.balances(tenant_id=ours.pk, user_id=new.pk).gift == 5 * YUAN
        entry = LogEntry.objects.get(user__memberships__tenant=ours)
    assert entry.change_message == "Imported: 1 added, 1 changed."
    assert audit.audit_tenant(tenant_id=ours.pk) == []


def test_gifts_beyond_a_persons_day_leave_everything_unwritten(settings: Settings) -> None:
    settings.STAFF_CREDIT_YUAN_PER_DAY = 8
    tenant = make_tenant()
    client = staff_of(tenant)
    page = upload(client, PEOPLE, "a,13800000001,,5,r", "b,13800000002,,5,r")
    answer = confirm(client, PEOPLE, page)
    assert (answer.status_code, "Nothing was written" in answer.content.decode()) == (200, True)
    assert people(tenant) == []
    assert audit.audit_tenant(tenant_id=tenant.pk) == []


def test_a_file_that_names_numbers_and_tenants_reaches_nobody_elses_rows() -> None:
    ours, theirs = make_tenant(), make_tenant()
    their = make_user(theirs, nickname="theirs", phone="13800000009")
    with scope.tenant(theirs.pk):
        role = Role.objects.create(tenant=theirs, slug="writer", name="Theirs", instructions="theirs")
        shelf = RoleCategory.objects.create(tenant=theirs, slug="shelf", name="Theirs")
        word = ModerationWord.objects.create(tenant=theirs, word="secret", action="flag")
    client = staff_of(ours)
    files = {
        PEOPLE: ("id,tenant,tenant_id," + HEADS[PEOPLE], f"{their.pk},{theirs.pk},{theirs.pk},stolen,13800000009,,,"),
        ROLES: ("id,tenant," + HEADS[ROLES], f"{role.pk},{theirs.pk},writer,Ours,,,,,ours"),
        WORDS: ("id,tenant," + HEADS[WORDS], f"{word.pk},{theirs.pk},secret,,block"),
    }
    for kind, (head, line) in files.items():
        page = upload(client, kind, line, head=head)
        assert (kind, counts(page)) == (kind, (1, 0, 0, 0))
        assert confirm(client, kind, page).status_code == 302
    assert faults(upload(client, ROLES, "new,New,shelf,,,,x")) == ["Line 2: There is no such category. Add it first."]
    with scope.tenant(theirs.pk):
        assert list(EndUser.objects.values_list("nickname", flat=True)) == ["theirs"]
        assert list(Role.objects.values_list("name", "instructions")) == [("Theirs", "theirs")]
        assert list(ModerationWord.objects.values_list("word", "action")) == [("secret", "flag")]
        assert list(RoleCategory.objects.values_list("pk", flat=True)) == [shelf.pk]
    with scope.tenant(ours.pk):
        assert list(EndUser.objects.values_list("nickname", flat=True)) == ["stolen"]
        assert list(Role.objects.values_list("name", "tenant_id")) == [("Ours", ours.pk)]
        assert list(ModerationWord.objects.values_list("word", "action")) == [("secret", "block")]


def test_assistants_are_added_and_changed_by_their_slug() -> None:
    tenant = make_tenant()
    with scope.tenant(tenant.pk):
        shelf = RoleCategory.objects.create(tenant=tenant, slug="work", name="Work")
        Role.objects.create(tenant=tenant, slug="writer", name="Writer", instructions="write", opening="Hi")
    client = staff_of(tenant, "content")
    page = upload(
        client,
        ROLES,
        'poet,Poet,work,,,"one\ntwo","Write\nverse"',
        "writer,Author,,,,,write",
        "writer,Again,,,,,x",
        "no slug!,Bad,,,,,x",
        "empty,,,,,,x",
    )
    assert counts(page) == (1, 1, 0, 3)
    assert [fault.split(":")[0] for fault in faults(page)] == ["Line 6", "Line 7", "Line 8"]
    assert confirm(client, ROLES, page).status_code == 302
    with scope.tenant(tenant.pk):
        rows = list(Role.objects.order_by("slug").values_list("slug", "name", "category", "suggestions", "opening"))
    assert rows == [("poet", "Poet", shelf.pk, "one\ntwo", ""), ("writer", "Author", None, "", "Hi")]
    assert counts(upload(client, ROLES, "writer,Author,,,,,write")) == (0, 0, 1, 0)


def test_words_are_added_and_those_of_the_list_stay() -> None:
    tenant = make_tenant()
    with scope.tenant(tenant.pk):
        ModerationWord.objects.create(tenant=tenant, word="old", action="flag")
    client = staff_of(tenant)
    page = upload(client, WORDS, "new,illegal,mask", "OLD,,block", "***,,", "x,nothing,block")
    assert counts(page) == (1, 0, 1, 2)
    assert confirm(client, WORDS, page).status_code == 302
    with scope.tenant(tenant.pk):
        rows = list(ModerationWord.objects.order_by("pk").values_list("word", "category", "action"))
    assert rows == [("old", "other", "flag"), ("new", "illegal", "mask")]


def test_batches_are_made_with_their_codes_once_by_name() -> None:
    tenant = make_tenant()
    client = staff_of(tenant, "finance")
    page = upload(
        client,
        BATCHES,
        "Spring,10,3,gift,2099-01-31,1",
        "Autumn,0.50,2,cash,,",
        "Bad,ten,1,,,",
        "Old,1,1,,2001-01-01,",
        "Many,1,10001,,,",
        "Spring,10,3,gift,,",
    )
    assert counts(page) == (2, 0, 0, 4)
    assert confirm(client, BATCHES, page).status_code == 302
    with scope.tenant(tenant.pk):
        rows = list(RedeemBatch.objects.order_by("pk").values_list("name", "amount", "count", "kind", "per_user_limit"))
        assert rows == [("Spring", 10 * YUAN, 3, "gift", 1), ("Autumn", YUAN // 2, 2, "cash", None)]
        assert RedeemCode.objects.count() == 5
    assert confirm(client, BATCHES, page).status_code == 200
    with scope.tenant(tenant.pk):
        assert RedeemCode.objects.count() == 5


def test_what_has_changed_since_the_preview_is_shown_anew() -> None:
    tenant = make_tenant()
    client = staff_of(tenant)
    page = upload(client, WORDS, "one,,", "two,,")
    with scope.tenant(tenant.pk):
        ModerationWord.objects.create(tenant=tenant, word="one")
    answer = confirm(client, WORDS, page)
    assert (answer.status_code, "Something has changed meanwhile." in answer.content.decode()) == (200, True)
    assert counts(answer.content.decode()) == (1, 0, 1, 0)
    with scope.tenant(tenant.pk):
        assert ModerationWord.objects.count() == 1


@pytest.mark.parametrize("kind", [PEOPLE, WORDS, ROLES, BATCHES])
def test_who_may_import_and_where(kind: str) -> None:
    tenant, other = make_tenant(), make_tenant()
    may = {
        PEOPLE: {"owner", "finance"},
        WORDS: {"owner", "content"},
        ROLES: {"owner", "content"},
        BATCHES: {"owner", "finance"},
    }[kind]
    for role in Membership.Role.values:
        client = staff_of(tenant, role)
        statuses = [client.get(f"/admin/{kind}/{page}").status_code for page in ("import/", "import/example/")]
        assert (role, statuses) == (role, [200, 200] if role in may else [404, 404])
        shown = client.get(f"/admin/{kind}/")
        assert (role, f"/admin/{kind}/import/" in shown.content.decode()) == (role, role in may)
    stranger = Client(headers={"host": host_of(tenant)})
    stranger.force_login(make_staff(other))
    assert stranger.get(f"/admin/{kind}/import/").status_code == 302
    operator = Client(headers={"host": "localhost"})
    operator.force_login(make_operator())
    assert operator.get(f"/platform/{kind}/import/").status_code == 404


@pytest.mark.parametrize("kind", [PEOPLE, WORDS, ROLES, BATCHES])
def test_the_example_can_be_imported_as_it_is(kind: str) -> None:
    tenant = make_tenant()
    client = staff_of(tenant)
    example = client.get(f"/admin/{kind}/import/example/").content.decode("utf-8-sig")
    assert ",".join(next(csv.reader(io.StringIO(example)))) == HEADS[kind]
    page = client.post(f"/admin/{kind}/import/", {"file": SimpleUploadedFile("x.csv", example.encode("utf-8-sig"))})
    assert counts(page.content.decode()) == (1, 0, 0, 0)


def test_a_formula_is_text_and_comes_back_as_it_was() -> None:
    tenant = make_tenant()
    client = staff_of(tenant)
    page = upload(client, PEOPLE, "'=1+1,13800000001,,,", "'quoted,13800000002,,,", "<b>,13800000003,,,")
    assert ('<td class="py-1">&lt;b&gt;</td>' in page, "<b>,1380" in page) == (True, False)
    assert confirm(client, PEOPLE, page).status_code == 302
    assert [row[0] for row in people(tenant)] == ["=1+1", "'quoted", "<b>"]


def test_what_is_no_sheet_is_said() -> None:
    columns = [Column(name="a", label="a", is_wanted=True), Column(name="b", label="b")]
    for data in (b"PK\x03\x04\x00\x00", b"\xff\xfe\x00"):
        with pytest.raises(SheetError):
            read_text(data)
    with pytest.raises(SheetError):
        read_text(b"x" * (imports.MOST_BYTES + 1))
    with translation.override("en"), pytest.raises(SheetError, match="missing: a"):
        read_lines("b,c\n1,2", columns)
    with pytest.raises(SheetError):
        read_lines("a\n" + "1\n" * (imports.MOST_LINES + 1), columns)
    assert read_text("a\n中".encode("gb18030")) == "a\n中"
    assert read_lines('B,x,A\n"1\n1",2,3\n\n,,\n4', columns) == [
        imports.Line(2, {"a": "3", "b": "1\n1"}),
        imports.Line(6, {"a": "", "b": "4"}),
    ]
    tenant = make_tenant()
    client = staff_of(tenant)
    answer = client.post(f"/admin/{PEOPLE}/import/", {"file": SimpleUploadedFile("x.xlsx", b"PK\x03\x04\x00")})
    assert "This workbook cannot be read." in answer.content.decode()
    assert "missing: word" in upload(client, WORDS, "1", head="nothing")
    assert client.post(f"/admin/{PEOPLE}/import/", {}).status_code == 200
