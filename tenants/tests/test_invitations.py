"""Inviting staff: one link, one address, one role, one tenant, once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connections
from django.test import Client
from django.utils import timezone

from tenants import invitations, resolve, scope
from tenants.errors import ProductError
from tenants.login import digest_of
from tenants.models import Membership, StaffInvitation, StaffUser, Tenant
from tenants.tests.conftest import House
from tests.factories import PASSWORD, make_staff, make_tenant, unique

db = pytest.mark.django_db

NEW = "an-unusual-sentence-9"


def address() -> str:
    return f"{unique('new')}@example.com"


def invite(house: House, email: str, role: str = "finance", **fields: Any) -> str:
    return invitations.invite(tenant=house.tenant, email=email, role=role, by=None, **fields)


def token_of(link: str) -> str:
    return link.rstrip("/").rsplit("/", 1)[1]


def browser(house: House) -> Client:
    return Client(headers={"host": house.host})


def path_of(link: str) -> str:
    return "/" + link.split("/", 3)[3]


def named(house: House, email: str) -> str:
    """Return the address of somebody who works for a house, and is called by it."""
    staff = make_staff(house.tenant)
    StaffUser.objects.filter(pk=staff.pk).update(username=email, email=email)
    return email


def roles(house: House) -> dict[str, str]:
    with scope.tenant(house.tenant.pk):
        return dict(Membership.objects.values_list("staff__username", "role"))


@db
def test_a_new_person_joins_by_the_mailed_link(aurora: House, django_capture_on_commit_callbacks: Any) -> None:
    email = address()
    with django_capture_on_commit_callbacks(execute=True):
        link = invite(aurora, email.upper())
    [sent] = mail.outbox
    assert (sent.to, link in sent.body, link.startswith(f"http://{aurora.host}/admin/join/")) == ([email], True, True)
    client = browser(aurora)
    assert client.get(path_of(link)).status_code == 200
    assert roles(aurora) == {}  # a messenger's preview accepts nothing
    joined = client.post(path_of(link), {"password": NEW, "again": NEW})
    assert (joined.status_code, joined["Location"]) == (302, "/admin/")
    assert client.get("/admin/").status_code == 200
    assert roles(aurora) == {email: "finance"}
    staff = StaffUser.objects.get(username=email)
    assert (staff.email, staff.is_superuser, staff.is_staff, staff.check_password(NEW)) == (email, False, False, True)


@db
def test_a_link_is_good_once_and_until_its_day(aurora: House) -> None:
    used, old, again = invite(aurora, address()), invite(aurora, address()), address()
    invitations.join(tenant=aurora.tenant, token=token_of(used), staff=make_staff())
    with scope.tenant(aurora.tenant.pk):
        StaffInvitation.objects.filter(digest=digest_of(token_of(old))).update(
            expires_at=timezone.now() - timedelta(seconds=1)
        )
    first, second = invite(aurora, again), invite(aurora, again)
    for link in (used, old, first, first[:-4] + "/"):
        assert browser(aurora).get(path_of(link)).status_code == 404
        with pytest.raises(ProductError) as refused:
            invitations.join(tenant=aurora.tenant, token=token_of(link), staff=make_staff())
        assert refused.value.type == "staff_invitation_not_found"
    assert browser(aurora).get(path_of(second)).status_code == 200


@db
def test_a_link_without_an_address_is_passed_on_and_takes_one(
    aurora: House, lotus: House, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        first, second = invite(aurora, ""), invite(aurora, "", "owner")
    assert mail.outbox == []
    client, email, new = browser(aurora), address(), {"password": NEW, "again": NEW}
    for wrong in ({}, {"email": "nowhere"}, {"email": named(lotus, email)}):
        assert (client.post(path_of(first), {**new, **wrong}).status_code, roles(aurora)) == (200, {})
    known, fresh = StaffUser.objects.get(username=email), address()
    assert client.post(path_of(first), {**new, "email": fresh}).status_code == 302
    assert (
        browser(aurora).post(path_of(second) + "?account", {"username": email, "password": PASSWORD}).status_code == 302
    )
    assert roles(aurora) == {fresh: "finance", known.username: "owner"}


@db
def test_a_link_opens_while_the_tenant_is_suspended(aurora: House) -> None:
    Tenant.objects.filter(pk=aurora.tenant.pk).update(status="suspended")
    resolve.forget()
    assert browser(aurora).get(path_of(invite(aurora, address()))).status_code == 200


@db
def test_a_withdrawn_link_opens_nothing(aurora: House) -> None:
    link = invite(aurora, address())
    row = invitations.open_invitation(tenant=aurora.tenant, token=token_of(link))
    ended = [invitations.revoke(tenant_id=aurora.tenant.pk, invitation_id=row.pk) for _ in range(2)]
    assert ended == [True, False]
    assert browser(aurora).post(path_of(link), {"password": NEW, "again": NEW}).status_code == 404
    assert roles(aurora) == {}


@db
def test_a_link_of_another_tenant_opens_nothing_here(aurora: House, lotus: House) -> None:
    link = invite(lotus, address(), "owner")
    assert browser(aurora).get(path_of(link)).status_code == 404
    assert browser(aurora).post(path_of(link), {"password": NEW, "again": NEW}).status_code == 404
    assert Client(headers={"host": "localhost"}).get(path_of(link)).status_code == 404
    assert (roles(aurora), roles(lotus)) == ({}, {})


@db
def test_who_has_an_account_logs_in_with_it(aurora: House, lotus: House) -> None:
    staff = make_staff(lotus.tenant)
    path = path_of(invite(aurora, address())) + "?account"
    wrong = browser(aurora).post(path, {"username": staff.username, "password": "wrong"})
    assert (wrong.status_code, roles(aurora)) == (200, {})
    joined = browser(aurora).post(path, {"username": staff.username, "password": PASSWORD})
    assert (joined.status_code, roles(aurora)) == (302, {staff.username: "finance"})
    assert roles(lotus) == {staff.username: "owner"}


@db
def test_who_is_logged_in_accepts_by_a_button_and_keeps_a_role_they_have(aurora: House) -> None:
    owner = make_staff(aurora.tenant)
    path = path_of(invite(aurora, address(), "content"))
    client = browser(aurora)
    client.force_login(owner)
    assert client.get(path).status_code == 200
    assert client.post(path).status_code == 302
    assert roles(aurora) == {owner.username: "owner"}


@db
def test_nobody_takes_an_account_over_by_an_invitation_to_its_address(aurora: House) -> None:
    email = address()
    StaffUser.objects.create_user(email, email=email, password=PASSWORD)
    page = browser(aurora).post(path_of(invite(aurora, email)), {"password": NEW, "again": NEW})
    assert (page.status_code, roles(aurora)) == (200, {})
    assert StaffUser.objects.get(username=email).check_password(PASSWORD)


@db
@pytest.mark.parametrize(("password", "again"), [("short", "short"), (NEW, f"{NEW}x"), ("", "")])
def test_a_weak_or_mistyped_password_is_refused(aurora: House, password: str, again: str) -> None:
    email = address()
    page = browser(aurora).post(path_of(invite(aurora, email)), {"password": password, "again": again})
    assert (page.status_code, roles(aurora), StaffUser.objects.filter(username=email).count()) == (200, {}, 0)


@db
@pytest.mark.parametrize(
    ("email", "role", "type_"),
    [("no address", "owner", "staff_email_invalid"), ("a@b.co", "king", "staff_role_unknown")],
)
def test_what_cannot_be_invited(aurora: House, email: str, role: str, type_: str) -> None:
    with pytest.raises(ProductError) as refused:
        invite(aurora, email, role)
    assert refused.value.type == type_


@pytest.mark.usefixtures("committed_db")
def test_of_eight_who_take_a_link_at_once_one_gets_it() -> None:
    tenant, names = make_tenant(), [address() for _ in range(8)]
    link = invitations.invite(tenant=tenant, role="owner", by=None, origin="http://x.example")

    def go(name: str) -> str:
        try:
            joined = invitations.join_as_new(tenant=tenant, token=token_of(link), password=NEW, email=name)
        except ProductError as refused:
            return refused.type
        finally:
            connections.close_all()
        return joined.username

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(go, names))
    assert said.count("staff_invitation_not_found") == 7
    assert StaffUser.objects.filter(username__in=names).count() == 1
    with scope.tenant(tenant.pk):
        assert Membership.objects.count() == 1
