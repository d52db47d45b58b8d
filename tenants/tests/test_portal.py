"""Coming into the resellers' portal: who may, where, and in which language."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.tokens import default_token_generator
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import translation
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from tenants import noticeboard, scope, second_factor, signup
from tenants.models import ChangeEntry, Notice, PlatformMembership, SecondFactor, StaffUser
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

HOME, LOG_IN, SECOND, SECURITY = "/portal/", "/portal/login/", "/portal/second-factor/", "/portal/security/"
NEW = "an-unusual-sentence-9"


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
    settings.STAFF_LOGIN_TRIES = 2
    staff, client = make_partner(make_reseller()), browser()
    for place in (LOG_IN, "/platform/login/"):  # an account's tries are counted wherever they are made
        client.post(place, {"username": staff.username, "password": "wrong"}, REMOTE_ADDR=unique("a"))
    page = client.post(LOG_IN, {"username": staff.username, "password": PASSWORD}, REMOTE_ADDR=unique("a"))
    [fault] = page.context["form"].non_field_errors()
    assert re.sub(r"\d\d:\d\d:\d\d", "…", fault) == (
        "Too many tries. Please wait a while and try again. You can try again at …."
    )
    assert client.get(HOME).status_code == 302


def with_second_factor(staff: StaffUser) -> Callable[[], str]:
    """Give somebody a second factor; return what makes codes, each of a later step."""
    key = second_factor.begin(staff).key
    steps = iter(range(second_factor.present_step(), second_factor.present_step() + 2))
    second_factor.confirm(staff, second_factor.code_of(key, next(steps)))
    return lambda: second_factor.code_of(key, next(steps))


@pytest.mark.django_db
def test_whoever_has_a_second_factor_is_asked_for_it() -> None:
    staff, client = make_partner(make_reseller()), browser()
    code = with_second_factor(staff)
    answer = client.post(f"{LOG_IN}?next=/portal/wallet/", {"username": staff.username, "password": PASSWORD})
    assert answer["Location"] == SECOND
    assert [client.get(path).status_code for path in (HOME, SECOND)] == [302, 200]
    wrong = client.post(SECOND, {"code": "000000"})
    assert (wrong.status_code, list(wrong.context["form"].errors), client.get(HOME).status_code) == (200, ["code"], 302)
    assert client.post(SECOND, {"code": code()})["Location"] == "/portal/wallet/"
    assert client.get(HOME).status_code == 200
    assert browser().get(SECOND)["Location"] == LOG_IN


@pytest.mark.django_db
def test_guesses_at_a_second_factor_close_it() -> None:
    staff, client = make_partner(make_reseller()), browser()
    code = with_second_factor(staff)
    client.post(LOG_IN, {"username": staff.username, "password": PASSWORD})
    for _ in range(5):
        client.post(SECOND, {"code": "000000"})
    page = client.post(SECOND, {"code": code()})
    assert "Too many tries." in str(page.context["form"].errors["code"])
    assert client.get(HOME).status_code == 302


@pytest.mark.django_db
def test_neither_an_invitation_nor_a_new_password_goes_round_the_second_factor() -> None:
    staff = make_partner(make_reseller())
    with_second_factor(staff)
    StaffUser.objects.filter(pk=staff.pk).update(email="rita@example.com")
    staff.refresh_from_db()
    client, new = browser(), {"new_password1": NEW, "new_password2": NEW}
    path = reverse("portal:invitation", args=signup.invitation_of(staff))
    assert (client.post(path, new)["Location"], client.get(HOME).status_code) == (SECOND, 302)
    assert client.get(path).status_code == 404
    client.post("/portal/forgot/", {"email": "RITA@example.com"})
    [letter] = mail.outbox
    link = re.search(r"http://localhost(/portal/reset/\S+)", str(letter.body))
    assert link is not None
    assert client.get(link[1]).status_code == 200
    assert client.post(link[1], {"new_password1": "short", "new_password2": "short"}).status_code == 200
    assert client.post(link[1], {"new_password1": f"{NEW}x", "new_password2": f"{NEW}x"}).status_code == 200
    assert [client.get(path).status_code for path in (link[1], HOME)] == [404, 302]
    answer = client.post(LOG_IN, {"username": staff.username, "password": f"{NEW}x"})
    assert answer["Location"] == SECOND


@pytest.mark.django_db
def test_nobody_but_a_resellers_person_gets_a_new_password_here() -> None:
    staff = make_staff(make_tenant())
    StaffUser.objects.filter(pk=staff.pk).update(email="tess@example.com")
    said = browser().post("/portal/forgot/", {"email": "tess@example.com"}).context["said"]
    assert (mail.outbox, said) == ([], browser().post("/portal/forgot/", {"email": "x@example.com"}).context["said"])
    staff.refresh_from_db()
    token = [urlsafe_base64_encode(force_bytes(staff.pk)), default_token_generator.make_token(staff)]
    assert browser().get(reverse("portal:reset", args=token)).status_code == 404


@pytest.mark.django_db
def test_one_sets_up_a_second_factor_and_ends_sessions() -> None:
    staff = make_partner(make_reseller())
    here, there = browser(staff), browser(staff)
    assert [client.get(HOME).status_code for client in (here, there)] == [200, 200]
    assert len(here.get(SECURITY).context["sessions"]) == 2
    key = SecondFactor.objects.get(staff=staff).key
    done = here.post(SECURITY, {"act": "confirm", "code": second_factor.code_of(key, second_factor.present_step())})
    assert (len(done.context["codes"]), done.context["is_on"]) == (10, True)
    # What was opened without it has ended.
    assert [client.get(HOME).status_code for client in (here, there)] == [200, 302]
    with scope.platform("the test's log"):
        entry = ChangeEntry.objects.get(row=str(staff.pk))
    assert (entry.tenant_id, entry.actor, entry.note) == (None, staff.username, "The second factor was turned on.")
    [recovery, *_rest] = done.context["codes"]
    assert here.post(SECURITY, {"act": "off", "code": recovery}).context["is_on"] is False


@pytest.mark.django_db
def test_resellers_may_have_to_have_a_second_factor(settings: Any) -> None:
    settings.TWO_FACTOR_ROLES = ["reseller"]
    staff = make_partner(make_reseller())
    client = browser(staff)
    assert client.get(HOME)["Location"] == SECURITY
    page = client.get(SECURITY)
    assert (page.status_code, page.context["must"]) == (200, True)
    code = second_factor.code_of(page.context["key"], second_factor.present_step())
    assert client.post(SECURITY, {"act": "confirm", "code": code}).status_code == 200
    assert client.get(HOME).status_code == 200


@pytest.mark.django_db
def test_notices_are_the_resellers_own_and_read_by_looking() -> None:
    reseller, other, tenant = make_reseller(), make_reseller(), make_tenant()
    staff = make_partner(reseller)
    with scope.platform("the test's notices"):
        for subject, reseller_id, tenant_id in (
            ("Ours", reseller.pk, None),
            ("Another's", other.pk, None),
            ("A tenant's", None, tenant.pk),
            ("The operator's", None, None),
        ):
            texts = {"en": {"subject": subject, "body": "b"}, "zh-hans": {"subject": "我们的", "body": "b"}}
            noticeboard.put_up(kind=Notice.Kind.EXPIRY, texts=texts, tenant_id=tenant_id, reseller_id=reseller_id)
    client = browser(staff)

    def shown() -> list[tuple[str, bool]]:
        told = client.get("/portal/notices/").context["notices"]
        with translation.override("en"):
            return [(row.subject, is_new) for row, is_new in told]

    assert client.get(HOME).context["request"].unread == 1
    assert [shown(), shown()] == [[("Ours", True)], [("Ours", False)]]
    assert client.get(HOME).context["request"].unread == 0
    StaffUser.objects.filter(pk=staff.pk).update(language="zh-hans")
    assert "我们的" in client.get("/portal/notices/").content.decode()


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
