"""Log-ins of staff: guesses, second factors, sessions, forgotten passwords; and the log of what they change."""

import re
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core import mail
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from tenants import changes, invitations, scope, second_factor, sessions
from tenants.errors import ProductError
from tenants.models import (
    ChangeEntry,
    EndUser,
    Membership,
    RecoveryCode,
    SecondFactor,
    StaffRules,
    StaffSession,
    StaffUser,
)
from tenants.tests.conftest import House
from tests.factories import PASSWORD, make_mini_program, make_operator, make_staff, unique

pytestmark = pytest.mark.django_db

NEW = "an-unusual-sentence-9"


@pytest.fixture(autouse=True)
def _keys(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


def browser(house: House, staff: StaffUser | None = None, **headers: str) -> Client:
    client = Client(headers={"host": house.host, **headers})
    if staff:
        client.force_login(staff)
    return client


def log_in(client: Client, username: str, password: str = PASSWORD) -> Any:
    return client.post("/admin/login/", {"username": username, "password": password})


def arm(staff: StaffUser) -> list[str]:
    """Give a staff user a second factor; return the recovery codes."""
    factor = second_factor.begin(staff)
    return second_factor.confirm(staff, second_factor.code_of(factor.key, second_factor.present_step() - 1))


def code(staff: StaffUser, *, later: int = 0) -> str:
    key = SecondFactor.objects.get(staff=staff).key
    return second_factor.code_of(key, second_factor.present_step() + later)


def entries(house: House) -> list[dict[str, Any]]:
    with scope.tenant(house.tenant.pk):
        rows = ChangeEntry.objects.order_by("id").values("actor", "action", "model", "row", "changes", "note")
        return [dict(row) for row in rows]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")]
)
def test_codes_are_those_of_rfc_6238(seconds: int, expected: str) -> None:
    """Its appendix B, of whose eight digits apps show the last six."""
    assert second_factor.code_of("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", seconds // 30) == expected


def test_a_second_factor_is_set_up_and_then_asked_for(aurora: House) -> None:
    staff = make_staff(aurora.tenant)
    client = browser(aurora, staff)
    page = client.get("/admin/security/").content.decode()
    key = SecondFactor.objects.get(staff=staff).key
    assert (key in page, "<svg" in page, "http://" in page.split("<svg")[1].split("</svg>")[0]) == (True, True, False)
    assert client.post("/admin/security/", {"act": "confirm", "code": "000000"}).status_code == 200
    assert second_factor.is_on(staff) is False
    shown = client.post("/admin/security/", {"act": "confirm", "code": code(staff)}).content.decode()
    codes = re.findall(r"\b[0-9a-f]{5}-[0-9a-f]{5}\b", shown)
    assert (len(codes), second_factor.is_on(staff)) == (10, True)
    assert key not in client.get("/admin/security/").content.decode()

    again = browser(aurora)
    answer = log_in(again, staff.username)
    assert (answer.status_code, answer["Location"]) == (302, "/admin/second-factor/")
    assert again.get("/admin/").status_code == 302
    assert again.get("/admin/second-factor/").status_code == 200
    assert again.post("/admin/second-factor/", {"code": "123"}).status_code == 200
    assert again.get("/admin/").status_code == 302
    assert again.post("/admin/second-factor/", {"code": code(staff, later=1)})["Location"] == "/admin/"
    assert again.get("/admin/").status_code == 200


def test_each_code_opens_once(aurora: House) -> None:
    staff = make_staff(aurora.tenant)
    recovery = arm(staff)
    for word in (code(staff), recovery[0], recovery[1].upper()):
        second_factor.check(staff, word)
        with pytest.raises(ProductError) as refused:
            second_factor.check(staff, word)
        assert refused.value.type == "second_factor_wrong"
    assert RecoveryCode.objects.filter(staff=staff, used_at=None).count() == 8
    assert not RecoveryCode.objects.filter(digest__in=recovery).exists()


def test_guessing_the_second_factor_is_locked_out_and_says_until_when(aurora: House) -> None:
    staff = make_staff(aurora.tenant)
    recovery = arm(staff)
    for _ in range(5):
        with pytest.raises(ProductError):
            second_factor.check(staff, "000000")
    with pytest.raises(ProductError) as locked:
        second_factor.check(staff, recovery[0])
    assert locked.value.type == "too_many_tries"
    client = browser(aurora)
    log_in(client, staff.username)
    page = client.post("/admin/second-factor/", {"code": recovery[0]}).content.decode()
    until = timezone.localtime(SecondFactor.objects.get(staff=staff).locked_until)
    assert f"{until:%H:%M:%S}" in page
    SecondFactor.objects.filter(staff=staff).update(locked_until=timezone.now() - timedelta(seconds=1))
    second_factor.check(staff, recovery[0])


def test_the_second_door_wants_the_first(aurora: House) -> None:
    staff = make_staff(aurora.tenant)
    arm(staff)
    client = browser(aurora)
    assert client.get("/admin/second-factor/")["Location"] == "/admin/login/"
    log_in(client, staff.username)
    StaffUser.objects.filter(pk=staff.pk).update(password="changed meanwhile")
    assert client.post("/admin/second-factor/", {"code": code(staff)})["Location"] == "/admin/login/"
    assert client.get("/admin/").status_code == 302


def test_an_invitation_is_no_way_round_the_second_factor(aurora: House, lotus: House) -> None:
    staff = make_staff(lotus.tenant)
    arm(staff)
    link = invitations.invite(tenant=aurora.tenant, email=f"{unique('a')}@example.com", role="support", by=None)
    client = browser(aurora)
    path = "/" + link.split("/", 3)[3] + "?account"
    answer = client.post(path, {"username": staff.username, "password": PASSWORD})
    assert answer["Location"] == "/admin/second-factor/"
    assert client.get("/admin/").status_code == 302


@pytest.mark.parametrize("how", ["setting", "tenant"])
def test_a_role_that_must_have_one_sees_nothing_else_before(aurora: House, settings: Settings, how: str) -> None:
    if how == "setting":
        settings.TWO_FACTOR_ROLES = ["owner"]
    else:
        with scope.tenant(aurora.tenant.pk):
            StaffRules.objects.create(tenant=aurora.tenant, second_factor_roles=["owner"])
    staff, support = make_staff(aurora.tenant), make_staff(aurora.tenant, role="support")
    client = browser(aurora, staff)
    for page in ("/admin/", "/admin/tenants/enduser/", "/admin/autocomplete/"):
        assert client.get(page)["Location"] == "/admin/security/"
    assert browser(aurora, support).get("/admin/").status_code == 200
    client.get("/admin/security/")
    client.post("/admin/security/", {"act": "confirm", "code": code(staff)})
    assert client.get("/admin/").status_code == 200
    client.post("/admin/security/", {"act": "off", "code": code(staff, later=1)})
    assert second_factor.is_on(staff) is True


def test_the_operators_people_may_have_to_use_one(settings: Settings) -> None:
    client = Client(headers={"host": "localhost"})
    client.force_login(make_operator())
    assert client.get("/platform/").status_code == 200
    settings.TWO_FACTOR_ROLES = ["operator"]
    assert client.get("/platform/")["Location"] == "/platform/security/"


def test_an_owner_resets_the_factor_of_the_tenants_own_people(aurora: House, lotus: House) -> None:
    owner, mine, shared = make_staff(aurora.tenant), make_staff(aurora.tenant), make_staff(aurora.tenant, lotus.tenant)
    arm(mine)
    arm(shared)
    with scope.tenant(aurora.tenant.pk):
        chosen = list(Membership.objects.filter(staff__in=[mine, shared]).values_list("pk", flat=True))
    there = browser(aurora, mine)
    there.get("/admin/")
    body = {"action": "reset_second_factor", "_selected_action": chosen}
    assert browser(aurora, owner).post("/admin/tenants/membership/", body).status_code == 302
    assert (second_factor.is_on(mine), second_factor.is_on(shared)) == (False, True)
    assert there.get("/admin/").status_code == 302
    assert [(row["actor"], row["note"]) for row in entries(aurora)] == [
        (owner.username, "The second factor was reset.")
    ]


def test_guessing_passwords_is_locked_out_at_every_host_alike(aurora: House, lotus: House, settings: Settings) -> None:
    settings.STAFF_LOGIN_TRIES = 3
    staff = make_staff(aurora.tenant, lotus.tenant)
    for house in (aurora, lotus, aurora):
        assert log_in(browser(house, None), staff.username, "wrong").status_code == 200
    page = log_in(browser(lotus), staff.username.upper())
    said = page.content.decode()
    assert ("Too many tries" in said, bool(re.search(r"try again at \d\d:\d\d:\d\d", said))) == (True, True)
    assert "sessionid" not in page.cookies
    assert log_in(browser(aurora), make_staff(aurora.tenant).username).status_code == 302


def test_sessions_are_listed_and_ended(aurora: House) -> None:
    staff = make_staff(aurora.tenant)
    phone = browser(aurora, staff, **{"user-agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0) Safari/605"})
    desk, other = browser(aurora, staff), browser(aurora, make_staff(aurora.tenant))
    for client in (phone, desk, other):
        assert client.get("/admin/").status_code == 200
    page = desk.get("/admin/security/").content.decode()
    assert ("Safari · iPhone" in page, aurora.host in page) == (True, True)
    [first, _second] = StaffSession.objects.filter(staff=staff).order_by("pk")
    foreign = StaffSession.objects.exclude(staff=staff).get()
    desk.post("/admin/security/", {"act": "end", "number": foreign.pk})
    assert other.get("/admin/").status_code == 200  # another person's is not one's own to end
    desk.post("/admin/security/", {"act": "end", "number": first.pk})
    assert (phone.get("/admin/").status_code, desk.get("/admin/").status_code) == (302, 200)
    third = browser(aurora, staff)
    third.get("/admin/")
    desk.post("/admin/security/", {"act": "end_others"})
    assert (third.get("/admin/").status_code, desk.get("/admin/").status_code) == (302, 200)
    assert other.get("/admin/").status_code == 200


def test_a_changed_password_ends_the_other_sessions(aurora: House) -> None:
    staff = make_staff(aurora.tenant)
    here, elsewhere = browser(aurora, staff), browser(aurora, staff)
    assert [client.get("/admin/").status_code for client in (here, elsewhere)] == [200, 200]
    body = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    assert here.post("/admin/password_change/", body).status_code == 302
    assert [client.get("/admin/").status_code for client in (here, elsewhere)] == [200, 302]
    assert list(sessions.open_ones(staff).values_list("pk", flat=True)) == [
        StaffSession.objects.filter(staff=staff).order_by("pk")[0].pk
    ]


def test_a_forgotten_password_is_set_by_a_mailed_link_once(aurora: House, lotus: House) -> None:
    staff = make_staff(aurora.tenant)
    email = f"{unique('a')}@example.com"
    StaffUser.objects.filter(pk=staff.pk).update(email=email)
    arm(staff)
    session = browser(aurora, staff)
    session.get("/admin/")
    said = [
        browser(house).post("/admin/forgot/", {"email": address}).content.decode()
        for house, address in ((aurora, "nobody@example.com"), (lotus, email), (aurora, email))
    ]
    assert [page.count("If there is an account") for page in said] == [1, 1, 1]
    [sent] = mail.outbox
    link = re.search(r"https?://\S+", str(sent.body))
    assert (sent.to, link is not None and link[0].startswith(f"http://{aurora.host}/admin/reset/")) == ([email], True)
    path = "/" + str(link and link[0]).split("/", 3)[3]
    assert browser(lotus).get(path).status_code == 404
    assert browser(aurora).post(path, {"password": "short", "again": "short"}).status_code == 200
    assert browser(aurora).post(path, {"password": NEW, "again": NEW}).status_code == 200
    assert browser(aurora).post(path, {"password": NEW, "again": NEW}).status_code == 404
    assert session.get("/admin/").status_code == 302
    staff.refresh_from_db()
    assert (staff.check_password(NEW), second_factor.is_on(staff)) == (True, True)
    assert log_in(browser(aurora), staff.username, NEW)["Location"] == "/admin/second-factor/"


def test_an_owner_invites_changes_roles_and_takes_out_but_never_the_last_owner(aurora: House, lotus: House) -> None:
    owner, member = make_staff(aurora.tenant), make_staff(aurora.tenant, role="support")
    client = browser(aurora, owner)
    email = f"{unique('a')}@example.com"
    added = client.post("/admin/tenants/staffinvitation/add/", {"email": email, "role": "content"}, follow=True)
    assert f"http://{aurora.host}/admin/join/" in added.content.decode()
    with scope.tenant(aurora.tenant.pk):
        rows = {row.staff_id: row.pk for row in Membership.objects.all()}
    base = "/admin/tenants/membership"
    assert client.post(f"{base}/{rows[member.pk]}/change/", {"role": "finance"}).status_code == 302
    assert client.post(f"{base}/{rows[owner.pk]}/change/", {"role": "finance"}).status_code == 200
    assert client.post(f"{base}/{rows[owner.pk]}/delete/", {"post": "yes"}).status_code == 403
    with scope.tenant(aurora.tenant.pk):
        assert dict(Membership.objects.values_list("staff", "role")) == {owner.pk: "owner", member.pk: "finance"}
    assert client.post(f"{base}/{rows[member.pk]}/delete/", {"post": "yes"}).status_code == 302
    with scope.tenant(aurora.tenant.pk):
        assert list(Membership.objects.values_list("staff", flat=True)) == [owner.pk]
    for role in ("finance", "support", "content"):
        other = browser(aurora, make_staff(aurora.tenant, role=role))
        assert other.get(f"{base}/").status_code == 403
        assert other.post("/admin/tenants/staffinvitation/add/", {"email": email, "role": "owner"}).status_code == 403
    logged = [(row["actor"], row["action"], row["model"]) for row in entries(aurora)]
    assert logged == [
        (owner.username, "added", "tenants.StaffInvitation"),
        (owner.username, "changed", "tenants.Membership"),
        (owner.username, "deleted", "tenants.Membership"),
    ]
    assert entries(aurora)[1]["changes"] == {"role": ["support", "finance"]}
    assert "digest" not in entries(aurora)[0]["changes"] or entries(aurora)[0]["changes"]["digest"] == [None, "•••"]


def test_a_change_is_logged_with_before_and_after_and_no_secret(aurora: House, lotus: House) -> None:
    program = make_mini_program(aurora.tenant, secret="the-first-secret")
    operator = Client(headers={"host": "localhost"})
    operator.force_login(make_operator())
    row = {"tenant": aurora.tenant.pk, "app_id": program.app_id, "name": "Mini", "secret": "the-second-secret"}
    assert operator.post(f"/platform/tenants/miniprogram/{program.pk}/change/", row).status_code == 302
    [logged] = entries(aurora)
    assert logged["changes"] == {"secret": ["•••", "•••"], "name": ["", "Mini"]}
    assert entries(lotus) == []
    pages = [browser(house, make_staff(house.tenant)).get("/admin/tenants/changeentry/") for house in (aurora, lotus)]
    assert [page.context["cl"].result_count for page in pages] == [1, 0]
    assert [page.content.count(b"-secret") for page in pages] == [0, 0]


def test_money_given_by_hand_is_in_the_log(aurora: House) -> None:
    owner = make_staff(aurora.tenant)
    client = browser(aurora, owner)
    path = f"/admin/tenants/enduser/{aurora.alice.pk}/credit/"
    number = "0192f0c1-2b3c-7d4e-8f90-123456789abc"
    body = {"yuan": "5", "kind": "gift", "reason": "sorry", "number": number}
    assert client.post(path, body).status_code == 302
    [logged] = entries(aurora)
    assert (logged["actor"], logged["row"], logged["note"]) == (
        owner.username,
        str(aurora.alice.pk),
        "¥5.00 credited. Reason: sorry",
    )


def test_the_log_exports_and_can_be_neither_changed_nor_emptied(aurora: House) -> None:
    owner = make_staff(aurora.tenant)
    client = browser(aurora, owner)
    client.post("/admin/security/", {"act": "end_others"})
    client.post("/admin/tenants/staffinvitation/add/", {"email": f"{unique('a')}@example.com", "role": "content"})
    with scope.tenant(aurora.tenant.pk):
        entry = ChangeEntry.objects.get()
    body = {"action": "export", "_selected_action": [entry.pk]}
    sheet = client.post("/admin/tenants/changeentry/", body).content.decode("utf-8-sig")
    assert (sheet.count("\n"), owner.username in sheet) == (2, True)
    assert client.post(f"/admin/tenants/changeentry/{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    with scope.tenant(aurora.tenant.pk):
        for spoil in (
            lambda: ChangeEntry.objects.update(actor="somebody else"),
            lambda: ChangeEntry.objects.all().delete(),
            lambda: connection.cursor().execute("TRUNCATE tenants_changeentry"),
        ):
            with pytest.raises(DatabaseError), transaction.atomic():
                spoil()
        assert ChangeEntry.objects.get().actor == owner.username


def test_what_is_logged_of_a_row_hides_secrets_and_passwords(aurora: House) -> None:
    before = changes.picture(aurora.alice)
    aurora.alice.password, aurora.alice.nickname = "a digest", "Al"
    found = changes.difference(before, changes.picture(aurora.alice))
    assert found == {"password": ["", "•••"], "nickname": [f"Alice of {aurora.tenant.slug}", "Al"]}
    assert isinstance(aurora.alice, EndUser)
