"""How resellers come: they apply, the operator decides, they choose a password; what they agreed to is kept."""

import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks

from billing.tests.portal.trade import browser, page
from tenants import scope, signup
from tenants.models import (
    Notice,
    PlatformMembership,
    Reseller,
    ResellerApplication,
    ResellerTerms,
    StaffUser,
    TermsAcceptance,
)
from tenants.portal import joining
from tests.factories import host_of, make_operator, make_reseller, make_staff, make_tenant, unique

ADDRESS = "198.51.100.7"


@pytest.fixture
def terms(db: None) -> ResellerTerms:
    return ResellerTerms.objects.create(version=unique("v"), text="条款", text_en="The words")


def asked(terms: ResellerTerms, **fields: str) -> dict[str, str]:
    slug = unique("firm")
    given = {"name": f"The {slug}", "slug": slug, "contact": "Ann", "email": f"{slug}@example.com", "phone": "123456"}
    return {**given, "terms": terms.version, "accepted": "on", **fields}


def stranger(address: str = ADDRESS) -> Client:
    client = browser(None)
    client.defaults["REMOTE_ADDR"] = address
    return client


def link_in(letter: mail.EmailMessage) -> str:
    (found,) = re.findall(r"http://localhost(/\S+)", str(letter.body))
    return str(found)


@pytest.fixture
def waiting(terms: ResellerTerms, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks) -> str:
    """The short name of an application that waits for the operator."""
    form = asked(terms)
    with django_capture_on_commit_callbacks(execute=True):
        stranger(unique("a")).post(page("sign_up"), form)
    stranger().post(link_in(mail.outbox.pop()))
    return form["slug"]


def decide(client: Client, action: str, slug: str, reason: str = "") -> list[str]:
    row = ResellerApplication.objects.get(slug=slug)
    form = {"action": action, "_selected_action": [row.pk], "reason": reason}
    answer = client.post(reverse("admin:tenants_resellerapplication_changelist"), form, follow=True)
    return [str(message) for message in answer.context["messages"]]


def test_from_application_to_the_portal(
    terms: ResellerTerms, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    form = asked(terms)
    with django_capture_on_commit_callbacks(execute=True):
        told = stranger().post(page("sign_up"), form)
    assert "follow the link in our mail" in told.content.decode()
    row = ResellerApplication.objects.get()
    assert (row.state, row.terms, row.address, row.language) == ("unconfirmed", terms, ADDRESS, "en")
    letter = mail.outbox.pop()
    confirm = link_in(letter)
    assert (letter.to, confirm.rsplit("/", 2)[1] in row.digest) == ([form["email"]], False)
    # A mail program opens links: that confirms nothing.
    assert stranger().get(confirm).status_code == 200
    row.refresh_from_db()
    assert row.state == "unconfirmed"
    operator = make_operator()
    StaffUser.objects.filter(pk=operator.pk).update(email="operator@example.net", language="en")
    assert stranger().post(confirm)["Location"] == confirm
    # The operator's people are told by a mail, too; those whom other tests have made have no address.
    told_by_mail = mail.outbox.pop()
    assert (told_by_mail.to, told_by_mail.subject) == (
        ["operator@example.net"],
        f"{form['name']} wants to become a reseller",
    )
    with scope.platform("the operator's notices"):
        notices = Notice.objects.filter(tenant=None, reseller=None, kind="application")
        assert [row.subject for row in notices] == [f"{form['name']} wants to become a reseller"]
    assert "once the operator has decided" in stranger().get(confirm).content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        assert decide(browser(operator), "approve", form["slug"]) == ["The application was approved. Rows: 1."]
    row.refresh_from_db()
    reseller = Reseller.objects.get(slug=form["slug"])
    assert (row.state, row.decided_by, row.reseller) == ("approved", operator, reseller)
    assert LogEntry.objects.get().change_message == "The application was approved."
    membership = PlatformMembership.objects.get(reseller=reseller)
    assert (membership.role, membership.staff.email) == ("reseller", form["email"])
    kept = TermsAcceptance.objects.get(reseller=reseller)
    assert (kept.staff, kept.terms, kept.address, kept.accepted_at) == (
        membership.staff,
        terms,
        ADDRESS,
        row.created_at,
    )
    invitation, client = link_in(mail.outbox.pop()), stranger()
    shown = client.get(invitation)
    assert (shown.status_code, "accepted" in shown.context["form"].fields) == (200, False)
    password = {"new_password1": "a-long-pass-phrase-9", "new_password2": "a-long-pass-phrase-9"}
    assert client.post(invitation, {**password, "new_password2": "other"}).status_code == 200
    assert client.post(invitation, password)["Location"] == page("home")
    assert reseller.name in client.get(page("home")).content.decode()
    assert stranger().get(invitation).status_code == 404
    # Decided is decided.
    assert decide(browser(operator), "refuse", form["slug"], "late") == ["The application was refused. Rows: 0."]


def test_the_operator_refuses_with_a_reason(
    waiting: str, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    client = browser(make_operator())
    assert decide(client, "refuse", waiting) == ["A reason is wanted."]
    with django_capture_on_commit_callbacks(execute=True):
        assert decide(client, "refuse", waiting, "too small") == ["The application was refused. Rows: 1."]
    assert ("too small" in str(mail.outbox.pop().body), Reseller.objects.filter(slug=waiting).count()) == (True, 0)
    assert ResellerApplication.objects.get(slug=waiting).reason == "too small"


def test_an_application_is_decided_on_its_own_page_after_a_second_look(waiting: str) -> None:
    client, row = browser(make_operator()), ResellerApplication.objects.get(slug=waiting)
    shown = reverse("admin:tenants_resellerapplication_change", args=[row.pk])
    approve, refuse = (shown.replace("change/", f"{what}/") for what in ("approve", "refuse"))
    assert [approve in client.get(shown).content.decode(), refuse in client.get(shown).content.decode()] == [True] * 2
    assert [client.get(url).status_code for url in (approve, refuse)] == [200, 200]
    assert client.post(refuse, {"reason": " "}).status_code == 200
    row.refresh_from_db()
    assert row.state == "waiting"
    assert client.post(approve)["Location"] == shown
    assert client.post(refuse, {"reason": "late"})["Location"] == shown
    row.refresh_from_db()
    assert (row.state, row.reseller) == ("approved", Reseller.objects.get(slug=waiting))


def test_a_short_name_that_was_taken_since_is_said(waiting: str) -> None:
    Reseller.objects.create(slug=waiting, name="x")
    said = decide(browser(make_operator()), "approve", waiting)
    assert said[0].split(": ")[-1] == "This short name is taken."
    assert ResellerApplication.objects.get(slug=waiting).state == "waiting"


@pytest.mark.parametrize("who", ["nobody", "staff", "reseller"])
def test_only_the_operator_decides(waiting: str, who: str) -> None:
    people = {"nobody": None, "staff": make_staff(make_tenant()), "reseller": make_reseller()}
    form = {"action": "approve", "_selected_action": [ResellerApplication.objects.get(slug=waiting).pk]}
    answer = browser(people[who]).post(reverse("admin:tenants_resellerapplication_changelist"), form)
    assert answer["Location"].split("?")[0] == reverse("admin:login")
    assert ResellerApplication.objects.get(slug=waiting).state == "waiting"


def test_what_an_application_must_have(terms: ResellerTerms) -> None:
    taken = make_reseller().slug
    for wrong, field in (
        ({"accepted": ""}, "accepted"),
        ({"email": "x"}, "email"),
        ({"slug": taken.upper()}, "slug"),
        ({"slug": make_staff().username}, "slug"),
        ({"slug": "中文"}, "slug"),
        ({"name": ""}, "name"),
    ):
        form = stranger(unique("a")).post(page("sign_up"), asked(terms, **wrong)).context["form"]
        assert list(form.errors) == [field]
    newer = ResellerTerms.objects.create(version="newer", text="新", text_en="new")
    said = stranger().post(page("sign_up"), asked(terms)).context["form"]
    assert said.non_field_errors() == ["The terms of service have changed. Please read them."]
    assert newer.version in stranger().get(page("terms")).content.decode()
    assert ResellerApplication.objects.count() == 0


@pytest.mark.django_db
def test_without_terms_nobody_applies() -> None:
    said = stranger().get(page("sign_up")).content.decode()
    assert "Applications are not open" in said
    assert stranger().get(page("terms")).status_code == 404
    stranger().post(page("sign_up"), {"name": "x"})
    assert ResellerApplication.objects.count() == 0


def test_applications_are_counted(terms: ResellerTerms) -> None:
    email = f"{unique('m')}@example.com"
    for _ in range(joining.PER_EMAIL):
        stranger(ADDRESS).post(page("sign_up"), asked(terms, email=email), REMOTE_ADDR="203.0.113.9")
    form = stranger().post(page("sign_up"), asked(terms, email=email.upper())).context["form"]
    assert form.non_field_errors() == ["Too many tries. Please wait a while and try again."]
    assert ResellerApplication.objects.filter(email=email).count() == joining.PER_EMAIL


def test_a_link_ends(terms: ResellerTerms, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        stranger("203.0.113.10").post(page("sign_up"), asked(terms))
    confirm = link_in(mail.outbox.pop())
    ResellerApplication.objects.update(created_at=timezone.now() - signup.CONFIRM_WITHIN - timedelta(minutes=1))
    assert [stranger().get(confirm).status_code, stranger().post(confirm).status_code] == [404, 404]
    assert stranger().get(page("confirm", "wrong")).status_code == 404
    assert stranger().get(page("invitation", "MQ", "wrong")).status_code == 404
    assert stranger().get(page("invitation", "%%%", "wrong")).status_code == 404


def test_an_invited_person_accepts_the_terms(terms: ResellerTerms) -> None:
    """Of a sub-reseller nobody has accepted anything yet."""
    reseller, person = signup.open_reseller(
        name="Sub",
        slug=unique("sub"),
        contact="Ann",
        email="a@example.com",
        language="en",
        link=lambda *_carried: "",
        parent=make_reseller(),
    )
    url = page("invitation", *signup.invitation_of(person))
    password = {"new_password1": "a-long-pass-phrase-9", "new_password2": "a-long-pass-phrase-9"}
    assert list(stranger().post(url, password).context["form"].errors) == ["accepted"]
    assert stranger().post(url, {**password, "accepted": "on"})["Location"] == page("home")
    kept = TermsAcceptance.objects.get(reseller=reseller)
    assert (kept.staff, kept.terms, kept.address) == (person, terms, ADDRESS)


def test_what_was_agreed_is_not_changed(terms: ResellerTerms) -> None:
    operator = browser(make_operator())
    add = {"version": "2", "text": "二", "text_en": "two"}
    assert operator.post(reverse("admin:tenants_resellerterms_add"), add).status_code == 302
    change = reverse("admin:tenants_resellerterms_change", args=[terms.pk])
    assert operator.post(change, {**add, "version": "3"}).status_code == 403
    assert operator.post(reverse("admin:tenants_resellerterms_delete", args=[terms.pk])).status_code == 403
    current = signup.current_terms()
    assert current is not None
    assert current.version == "2"


def test_nothing_of_this_is_on_a_tenants_host(terms: ResellerTerms) -> None:
    client = browser(None, host=host_of(make_tenant()))
    assert [client.get(page(name)).status_code for name in ("sign_up", "terms", "log_in")] == [404, 404, 404]
