"""Notices of staff: who sees which, what is unread, and the operator's announcements."""

import pytest
from django.test import Client

from billing import notices
from tenants import noticeboard, scope
from tenants.letters import Letter
from tenants.models import Notice, StaffAnnouncement, StaffUser, Tenant
from tenants.tests.conftest import House, make_house
from tests.factories import make_operator, make_reseller, make_staff

pytestmark = pytest.mark.django_db

TEXTS = {"en": {"subject": "Look here", "body": "and there"}}


@pytest.fixture
def aurora(db: None) -> House:
    return make_house()


@pytest.fixture
def lotus(db: None) -> House:
    return make_house()


def client_of(house: House, staff: StaffUser) -> Client:
    client = Client(headers={"host": house.host})
    client.force_login(staff)
    return client


def put_up(tenant: Tenant | None, *roles: str) -> Notice | None:
    with scope.platform("a test's notice"):
        return noticeboard.put_up(
            kind=Notice.Kind.FAILURE, texts=TEXTS, tenant_id=None if tenant is None else tenant.pk, roles=roles
        )


def unread(tenant: Tenant | None, staff: StaffUser) -> int:
    with scope.platform("a test's count"):
        return noticeboard.unread(staff=staff, tenant_id=None if tenant is None else tenant.pk)


def test_staff_see_the_own_tenants_notices_of_their_role(aurora: House, lotus: House) -> None:
    put_up(aurora.tenant, "owner", "finance")
    owner, support = make_staff(aurora.tenant), make_staff(aurora.tenant, role="support")
    stranger, operator = make_staff(lotus.tenant), make_operator()
    assert [unread(aurora.tenant, who) for who in (owner, support, stranger)] == [1, 0, 0]
    assert (unread(lotus.tenant, stranger), unread(None, operator)) == (0, 0)
    pages = [
        client_of(house, who).get("/admin/tenants/notice/").content.decode()
        for house, who in ((aurora, owner), (aurora, support), (lotus, stranger))
    ]
    assert ["Look here" in page for page in pages] == [True, False, False]


def test_a_notice_that_is_not_ones_own_is_not_there(aurora: House, lotus: House) -> None:
    made = put_up(aurora.tenant, "owner")
    assert made is not None
    path = f"/admin/tenants/notice/{made.pk}/change/"
    for house, role in ((aurora, "support"), (lotus, "owner")):
        answer = client_of(house, make_staff(house.tenant, role=role)).get(path)
        assert (answer.status_code, "and there" in answer.content.decode()) == (404, False)
    assert "and there" in client_of(aurora, make_staff(aurora.tenant)).get(path).content.decode()


def test_looking_at_the_list_takes_it_for_read_for_that_person(aurora: House) -> None:
    put_up(aurora.tenant)
    one, other = make_staff(aurora.tenant), make_staff(aurora.tenant)
    client_of(aurora, one).get("/admin/tenants/notice/")
    assert [unread(aurora.tenant, who) for who in (one, other)] == [0, 1]


def test_the_same_is_not_put_up_again_and_again(aurora: House, lotus: House) -> None:
    made = [put_up(aurora.tenant), put_up(aurora.tenant), put_up(lotus.tenant), put_up(None)]
    assert [notice is None for notice in made] == [False, True, False, False]


def test_what_is_mailed_is_left_as_a_notice_in_every_language(aurora: House, mailoutbox: list[object]) -> None:
    StaffUser.objects.filter(pk=make_staff(aurora.tenant).pk).update(email="owner@example.com")
    with scope.platform("a test's notice"):
        told = notices.tell(kind=Notice.Kind.PRICE, tenant=aurora.tenant, write=lambda: Letter("Subject", "Body"))
        [left] = Notice.objects.filter(tenant=aurora.tenant)
    both = {"subject": "Subject", "body": "Body"}
    assert (told, len(mailoutbox), left.texts, left.roles) == (
        1,
        1,
        {"zh-hans": both, "en": both},
        ["owner", "finance"],
    )


def test_an_announcement_reaches_tenants_staff_and_resellers_once(aurora: House, lotus: House) -> None:
    reseller = make_reseller()
    Tenant.objects.filter(pk=lotus.tenant.pk).update(status=Tenant.Status.CLOSED)
    client = Client(headers={"host": "localhost"})
    client.force_login(make_operator())
    form = {"subject": "维护", "body": "今晚", "subject_en": "Maintenance", "body_en": "Tonight"}
    sent = client.post("/platform/tenants/staffannouncement/add/", {**form, "to_tenants": "on", "to_resellers": "on"})
    assert sent.status_code == 302
    with scope.platform("a test's count"):
        rows = Notice.objects.filter(kind=Notice.Kind.ANNOUNCEMENT)
        assert [rows.filter(tenant=house.tenant).count() for house in (aurora, lotus)] == [1, 0]
        assert rows.filter(reseller=reseller).count() == 1
    page = client_of(aurora, make_staff(aurora.tenant, role="content")).get("/admin/tenants/notice/").content.decode()
    assert "Maintenance" in page
    announcement = StaffAnnouncement.objects.get()
    path = f"/platform/tenants/staffannouncement/{announcement.pk}"
    assert client.post(f"{path}/change/", form).status_code == 403
    assert client.post(f"{path}/delete/", {"post": "yes"}).status_code == 403


def test_only_the_operator_announces(aurora: House) -> None:
    answer = client_of(aurora, make_staff(aurora.tenant)).get("/admin/tenants/staffannouncement/")
    assert answer.status_code == 404
