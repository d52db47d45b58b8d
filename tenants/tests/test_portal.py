"""Coming into the resellers' portal: who may, where, and in which language."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tenants.models import PlatformMembership, StaffUser
from tests.factories import (
    PASSWORD,
    host_of,
    make_operator,
    make_partner,
    make_reseller,
    make_staff,
    make_tenant,
    unique,
)

HOME, LOG_IN = "/portal/", "/portal/login/"


def browser(staff: StaffUser | None = None, *, host: str = "localhost", language: str = "en") -> Client:
    client = Client(headers={"host": host, "accept-language": language})
    if staff:
        client.force_login(staff)
    return client


@pytest.mark.django_db
def test_a_resellers_person_logs_in_and_out(settings: Any) -> None:
    reseller = make_reseller()
    staff, client = make_partner(reseller), browser()
    assert client.get(HOME)["Location"] == f"{LOG_IN}?next={HOME}"
    answer = client.post(f"{LOG_IN}?next=/portal/?days=7", {"username": staff.username, "password": PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, "/portal/?days=7")
    page = client.get(HOME)
    assert (page.status_code, reseller.name in page.content.decode()) == (200, True)
    assert client.get(LOG_IN)["Location"] == HOME
    assert client.get("/portal/logout/").status_code == 405
    assert client.post("/portal/logout/")["Location"] == LOG_IN
    assert client.get(HOME).status_code == 302


@pytest.mark.django_db
def test_a_log_in_goes_on_within_the_site_only() -> None:
    staff, client = make_partner(make_reseller()), browser()
    answer = client.post(f"{LOG_IN}?next=//evil.example/", {"username": staff.username, "password": PASSWORD})
    assert answer["Location"] == HOME


@pytest.mark.django_db
def test_whoever_works_for_no_reseller_stays_outside() -> None:
    """A wrong password, a tenant's owner, an operator and a closed account are told the same."""
    gone = make_partner(make_reseller())
    StaffUser.objects.filter(pk=gone.pk).update(is_active=False)
    said = []
    for staff, password in [
        (make_staff(make_tenant()), PASSWORD),
        (make_operator(), PASSWORD),
        (gone, PASSWORD),
        (make_partner(make_reseller()), "wrong"),
    ]:
        page = browser().post(LOG_IN, {"username": staff.username, "password": password})
        said.append((page.status_code, page.context["form"].non_field_errors()))
    assert all(one == said[0] for one in said)
    assert said[0][0] == 200
    for staff in (make_staff(make_tenant()), make_operator()):
        assert browser(staff).get(HOME)["Location"] == f"{LOG_IN}?next={HOME}"


@pytest.mark.django_db
def test_a_membership_that_ended_opens_nothing() -> None:
    staff = make_partner(make_reseller())
    client = browser(staff)
    assert client.get(HOME).status_code == 200
    PlatformMembership.objects.filter(staff=staff).delete()
    assert client.get(HOME).status_code == 302


@pytest.mark.django_db
def test_the_portal_is_on_the_platforms_hosts_only() -> None:
    client = browser(make_partner(make_reseller()), host=host_of(make_tenant()))
    assert [client.get(path).status_code for path in (HOME, LOG_IN)] == [404, 404]


@pytest.mark.django_db
def test_guesses_at_a_password_are_counted(settings: Any) -> None:
    settings.LOGIN_TRIES = 2
    staff, client = make_partner(make_reseller()), browser()
    for _ in range(2):
        client.post(LOG_IN, {"username": staff.username, "password": "wrong"}, REMOTE_ADDR=unique("a"))
    page = client.post(LOG_IN, {"username": staff.username, "password": PASSWORD}, REMOTE_ADDR=unique("a"))
    assert page.context["form"].non_field_errors() == ["Too many tries. Please wait a while and try again."]


@pytest.mark.django_db
def test_a_person_chooses_the_language() -> None:
    staff = make_partner(make_reseller())
    client = browser(staff, language="zh-CN")
    assert client.get(HOME)["Content-Language"] == "zh-hans"
    assert client.post(reverse("portal:language"), {"language": "en", "next": "/portal/?a=1"})["Location"] == (
        "/portal/?a=1"
    )
    assert client.get(HOME)["Content-Language"] == "en"
    client.post(reverse("portal:language"), {"language": "xx"})
    staff.refresh_from_db()
    assert staff.language == "en"
