"""Owners, finance and the operator set the rules; support looks; another tenant's rows are nobody's here."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from structlog.testing import capture_logs

from billing import bonuses
from billing.models import AdTicket, Invitation, InvitationReward, RewardDebt, RewardRules, SignIn
from billing.tests.rewards.conftest import Farm, open_farm
from tenants import scope
from tenants.models import StaffUser
from tests.factories import YUAN, host_of, make_operator, make_staff, make_tenant

ROWS = (SignIn, AdTicket, Invitation, InvitationReward, RewardDebt)
FORM = {
    "sign_in_yuan": "0.1 0.25 1",
    "inviter_yuan": "3.50",
    "invitee_yuan": "0",
    "ad_yuan": "0.05",
    "inviter_per_day": "5",
    "inviter_total": "100",
    "per_device": "1",
    "per_address": "3",
    "window_days": "30",
    "ads_per_day": "4",
    "ad_seconds": "15",
    "ad_ticket_seconds": "600",
}


def browser(host: str, staff: StaffUser) -> Client:
    client = Client(HTTP_HOST=host)
    client.force_login(staff)
    return client


def client_of(farm: Farm, role: str) -> Client:
    return browser(host_of(farm.tenant), make_staff(farm.tenant, role=role))


def path(model: type[Any], page: str = "changelist", *args: object, site: str = "tenant_admin") -> str:
    return reverse(f"{site}:billing_{model.__name__.lower()}_{page}", args=args)


def rules_of(farm: Farm) -> RewardRules:
    with scope.tenant(farm.tenant.pk):
        return RewardRules.objects.get()


def busy(farm: Farm, nickname: str) -> Farm:
    """A row of each kind, of a user with that name."""
    user = farm.person(nickname=nickname)
    invitee = farm.person(nickname=nickname)
    farm.accept(invitee, farm.code(user))
    ref = farm.pay(invitee)
    farm.sweep()
    farm.spend_gift(user, YUAN)
    farm.refund(invitee, ref)
    farm.sweep()
    bonuses.sign_in(user=user)
    bonuses.issue_ticket(user=user)
    return farm


@pytest.mark.parametrize("role", ["owner", "finance"])
def test_rules_are_set_in_yuan(farm: Farm, role: str) -> None:
    client, row = client_of(farm, role), rules_of(farm)
    form = client.get(path(RewardRules, "change", row.pk)).content.decode()
    assert ('value="0.10 0.20 0.70"' in form, 'value="3.00"' in form, 'name="tenant"' in form) == (True, True, False)
    with capture_logs() as logs:
        answer = client.post(path(RewardRules, "change", row.pk), FORM)
    assert answer.status_code == 302
    row = rules_of(farm)
    assert (row.sign_in_amounts, row.inviter_amount, row.invitee_amount) == ([100_000, 250_000, YUAN], 3_500_000, 0)
    assert (row.ad_amount, row.ads_per_day) == (50_000, 4)
    staff = StaffUser.objects.get(pk=client.session["_auth_user_id"])
    (line,) = [line for line in logs if line["event"] == "reward_rules_set"]
    assert (line["staff"], line["tenant_id"], line["inviter_amount"]) == (staff.pk, farm.tenant.pk, 3_500_000)
    assert LogEntry.objects.filter(user=staff, object_id=str(row.pk)).count() == 1


def test_a_tenants_first_rules(db: None) -> None:
    tenant = make_tenant()
    client = browser(host_of(tenant), make_staff(tenant))
    assert client.post(path(RewardRules, "add"), FORM).status_code == 302
    with scope.tenant(tenant.pk):
        assert RewardRules.objects.get().inviter_amount == 3_500_000
    assert client.get(path(RewardRules, "add")).status_code == 403  # one is enough


@pytest.mark.parametrize(
    "wrong",
    [
        {"inviter_yuan": "1000.01"},
        {"invitee_yuan": "-1"},
        {"ad_yuan": "1e3"},
        {"ad_yuan": ""},
        {"sign_in_yuan": "1 2 many"},
        {"sign_in_yuan": " ".join(["1"] * 32)},
        {"per_device": "0"},
        {"window_days": "91"},
        {"ad_ticket_seconds": "15"},
    ],
)
def test_rules_that_make_no_sense_are_not_saved(farm: Farm, wrong: dict[str, str]) -> None:
    row = rules_of(farm)
    answer = client_of(farm, "owner").post(path(RewardRules, "change", row.pk), {**FORM, **wrong})
    assert (answer.status_code, len(answer.context["adminform"].form.errors)) == (200, 1)
    assert rules_of(farm).inviter_amount == 3 * YUAN


@pytest.mark.parametrize(("role", "status"), [("support", 403), ("content", 403)])
def test_others_do_not_see_the_rules(farm: Farm, role: str, status: int) -> None:
    client, row = client_of(farm, role), rules_of(farm)
    pages = [path(RewardRules), path(RewardRules, "change", row.pk), path(RewardRules, "add")]
    assert [client.get(page).status_code for page in pages] == [status] * 3
    assert client.post(path(RewardRules, "change", row.pk), FORM).status_code == status
    assert rules_of(farm).inviter_amount == 3 * YUAN


@pytest.mark.parametrize(("role", "status"), [("support", 200), ("finance", 200), ("content", 403)])
def test_support_looks_at_the_tenants_own_rows_only(farm: Farm, role: str, status: int) -> None:
    busy(farm, "Ours")
    other = busy(open_farm(), "Theirs")
    client = client_of(farm, role)
    for model in ROWS:
        page = client.get(path(model))
        assert (page.status_code, "Theirs" in page.content.decode()) == (status, False)
        assert ("Ours" in page.content.decode()) == (status == 200)
        with scope.tenant(farm.tenant.pk):
            mine = model._default_manager.latest("pk")
        with scope.tenant(other.tenant.pk):
            theirs = model._default_manager.latest("pk")
        assert client.get(path(model, "change", mine.pk)).status_code == status
        assert client.get(path(model, "change", theirs.pk)).status_code == (404 if status == 200 else 403)
        assert client.post(path(model, "change", mine.pk), {}).status_code == 403
        assert client.post(path(model, "delete", mine.pk), {"post": "yes"}).status_code == 403


def test_staff_see_why_an_invitation_is_not_rewarded(farm: Farm) -> None:
    code = farm.code(device="mine")
    second = farm.person(nickname="Twin")
    farm.accept(second, code, device="mine")
    page = client_of(farm, "support").get(path(Invitation)).content.decode()
    assert ("Twin" in page, "the inviter&#x27;s own device" in page) == (True, True)
    with scope.tenant(farm.tenant.pk):
        row = Invitation.objects.get()
    shown = client_of(farm, "support").get(path(Invitation, "change", row.pk)).content.decode()
    assert (row.device_digest in shown, row.address_digest in shown) == (False, False)


def test_the_operator_sees_and_sets_all(farm: Farm) -> None:
    busy(farm, "Ours")
    client, row = browser("localhost", make_operator()), rules_of(farm)
    for model in ROWS:
        assert client.get(path(model, site="admin")).status_code == 200
    assert client.post(path(RewardRules, "change", row.pk, site="admin"), FORM).status_code == 302
    assert (rules_of(farm).inviter_amount, rules_of(farm).tenant_id) == (3_500_000, farm.tenant.pk)
    fresh = make_tenant()
    assert client.post(path(RewardRules, "add", site="admin"), {**FORM, "tenant": fresh.pk}).status_code == 302
    with scope.tenant(fresh.pk):
        assert RewardRules.objects.get().ad_amount == 50_000
