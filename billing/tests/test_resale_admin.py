"""The operator agrees terms, decides and pays out; tenants fill their wallets and see nothing of what resellers get."""

import re
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import NoReverseMatch, reverse
from pytest_django import Settings
from structlog.testing import capture_logs

from billing import commission, usage, wallet, withdrawal
from billing.models import (
    Account,
    Commission,
    CommissionBack,
    CommissionTerms,
    ConsumptionBack,
    DailyUsage,
    Entry,
    Hold,
    PayoutBatch,
    Transfer,
    UsageRecord,
    WalletNotice,
    WalletTopUp,
    Withdrawal,
)
from billing.tests.resale import Grove, open_grove, whole_audit
from tenants import scope
from tenants.models import StaffUser
from tests.factories import YUAN, host_of, make_operator, make_partner, make_reseller, make_staff


@pytest.fixture(autouse=True)
def _encryption(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


@pytest.fixture
def grove(db: None) -> Grove:
    """A day was folded, a refund taken back, a withdrawal asked for."""
    grove = open_grove(min_withdrawal=1, withdrawal_fee_ppm=100_000)
    for _ in range(2):
        grove.answer()
    commission.fold_day()
    grove.matured()
    commission.take_back(
        tenant_id=grove.shop.tenant.pk, user_id=grove.shop.user.pk, spent=2000, ref="refund:1", reason="", actor="t"
    )
    commission.post_backs()
    return grove


@pytest.fixture
def operator(db: None) -> Client:
    return browser("localhost", make_operator())


def browser(host: str, staff: StaffUser) -> Client:
    StaffUser.objects.filter(pk=staff.pk).update(language="en")
    client = Client(HTTP_HOST=host)
    client.force_login(staff)
    return client


def member(grove: Grove, role: str = "owner") -> Client:
    return browser(host_of(grove.shop.tenant), make_staff(grove.shop.tenant, role=role))


def path(site: str, model: type[Any], page: str = "changelist", *args: object) -> str:
    return reverse(f"{site}:billing_{model.__name__.lower()}_{page}", args=args)


def act(
    client: Client, model: type[Any], action: str, *rows: object, site: str = "admin", reason: str = ""
) -> list[str]:
    """Run an action; return what was said."""
    answer = client.post(path(site, model), {"action": action, "_selected_action": rows, "reason": reason}, follow=True)
    return [str(message) for message in answer.context["messages"]]


TERMS = {"own": "12.5", "parent": "0", "freeze_days": "3", "smallest": "50", "fee": "0.25"}


def test_terms_are_agreed_in_percent_and_yuan(operator: Client) -> None:
    reseller = make_reseller()
    answer = operator.post(path("admin", CommissionTerms, "add"), {"reseller": reseller.pk, **TERMS})
    assert answer.status_code == 302
    terms = CommissionTerms.objects.get(reseller=reseller)
    assert (terms.own_ppm, terms.parent_ppm, terms.freeze_days) == (125_000, 0, 3)
    assert (terms.min_withdrawal, terms.withdrawal_fee_ppm) == (50 * YUAN, 2500)
    assert terms.created_by == StaffUser.objects.get(pk=operator.session["_auth_user_id"]).username
    page = operator.get(path("admin", CommissionTerms)).content.decode()
    assert ("12.50 %" in page, "0.25 %" in page) == (True, True)
    assert operator.get(path("admin", CommissionTerms, "change", terms.pk)).status_code == 200
    assert operator.post(path("admin", CommissionTerms, "change", terms.pk), {"own": "99"}).status_code == 403
    assert operator.post(path("admin", CommissionTerms, "delete", terms.pk), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize(
    "wrong",
    [
        {"own": "100.1"},
        {"own": "-1"},
        {"own": "1.23456"},
        {"fee": "100"},
        {"smallest": "0"},
        {"freeze_days": "400"},
        {"parent": "1"},  # of a reseller that can have no children
        {"own": "99"},  # below cost
    ],
)
def test_terms_that_make_no_sense_are_not_agreed(grove: Grove, operator: Client, wrong: dict[str, str]) -> None:
    before = CommissionTerms.objects.count()
    answer = operator.post(path("admin", CommissionTerms, "add"), {"reseller": grove.child.pk, **TERMS, **wrong})
    assert (answer.status_code, bool(answer.context["adminform"].form.errors)) == (200, True)
    assert CommissionTerms.objects.count() == before


def test_the_operator_holds_a_commission_back(operator: Client) -> None:
    grove = open_grove()
    grove.answer()
    commission.fold_day()
    (row,) = grove.commissions(grove.child)
    assert act(operator, Commission, "hold_back", row.pk) == ["A reason is wanted."]
    with capture_logs() as logs:
        assert act(operator, Commission, "hold_back", row.pk, reason="odd") == [
            "The commission was held back. Rows: 1."
        ]
    (row,) = grove.commissions(grove.child)
    assert (row.state, row.dispute) == ("disputed", "odd")
    assert LogEntry.objects.get(object_id=str(row.pk)).change_message == "The commission was held back."
    assert [log["row"] for log in logs if log["event"] == "staff_acted"] == [str(row.pk)]
    assert act(operator, Commission, "let_go", row.pk) == ["The commission is held back no longer. Rows: 1."]
    assert grove.commissions(grove.child)[0].state == "frozen"


def ask(grove: Grove, maker: StaffUser | None = None, payee: str = "Grove Ltd") -> Withdrawal:
    return withdrawal.request(
        reseller_id=grove.child.pk,
        amount=200,
        payee=payee,
        bank="ICBC",
        bank_account="6222000012345678",
        maker_id=(maker or make_partner(grove.child)).pk,
    )


def test_a_withdrawal_is_asked_for_in_a_resellers_name_and_decided_by_another(grove: Grove, operator: Client) -> None:
    account = {"payee": "Grove Ltd", "bank": "ICBC", "bank_account": "6222000012345678"}
    wanted = {"reseller": grove.child.pk, **account}
    page = operator.post(path("admin", Withdrawal, "add"), {**wanted, "yuan": "1"})
    assert page.status_code == 200
    assert "can be withdrawn now" in page.content.decode()
    assert Withdrawal.objects.count() == 0
    assert operator.post(path("admin", Withdrawal, "add"), {**wanted, "yuan": "0.0002"}).status_code == 302
    asked = Withdrawal.objects.get()
    maker = int(operator.session["_auth_user_id"])
    assert (asked.reseller_id, asked.amount, asked.maker_id, asked.state) == (grove.child.pk, 200, maker, "requested")
    assert asked.bank_account == account["bank_account"]
    (said,) = act(browser("localhost", make_operator()), Withdrawal, "approve", asked.pk)
    assert said == "The withdrawal was approved. Rows: 1."
    assert whole_audit() == []


def test_a_withdrawal_is_decided_batched_exported_sent_and_paid(grove: Grove, operator: Client) -> None:
    first, second = ask(grove), ask(grove, StaffUser.objects.get(pk=operator.session["_auth_user_id"]))
    page = operator.get(path("admin", Withdrawal, "change", first.pk)).content.decode()
    assert ("…5678" in page, "6222000012345678" in page) == (True, False)
    said = act(operator, Withdrawal, "approve", first.pk, second.pk)
    assert said == [
        f"withdrawal {second.pk}: Whoever asks does not decide: another person has to.",
        "The withdrawal was approved. Rows: 1.",
    ]
    (made,) = act(operator, Withdrawal, "put_in_batch", first.pk, second.pk)
    batch = PayoutBatch.objects.latest("pk")
    assert made == f"Payout batch {batch.pk} was made."
    file = operator.post(path("admin", PayoutBatch), {"action": "export", "_selected_action": [batch.pk]})
    assert file["Content-Disposition"] == f'attachment; filename="payout-{batch.pk}.csv"'
    assert file.content.decode("utf-8-sig").splitlines()[1] == f"{first.pk},Grove Ltd,ICBC,6222000012345678,0.00018"
    assert act(operator, PayoutBatch, "mark_sent", batch.pk) == ["The batch was sent. Rows: 1."]
    assert act(operator, Withdrawal, "mark_paid", first.pk, second.pk) == ["The withdrawal was paid. Rows: 1."]
    assert act(operator, Withdrawal, "mark_failed", first.pk, reason="late") == [
        "The withdrawal failed, and its amount was returned. Rows: 0."
    ]
    other = browser("localhost", make_operator())
    for action in ("reject", "mark_failed"):
        assert act(other, Withdrawal, action, second.pk, reason=" ") == ["A reason is wanted."]
    assert act(other, Withdrawal, "reject", second.pk, reason="no") == ["The withdrawal was rejected. Rows: 1."]
    states = Withdrawal.objects.filter(pk__in=[first.pk, second.pk]).order_by("pk").values_list("state", "note")
    assert list(states) == [("paid", ""), ("rejected", "no")]
    assert whole_audit() == []


def test_no_spreadsheet_takes_a_payee_for_a_formula(grove: Grove, operator: Client) -> None:
    row = ask(grove, payee="=HYPERLINK(1)")
    withdrawal.approve(withdrawal_id=row.pk, checker_id=make_operator().pk)
    batch = withdrawal.make_batch(withdrawal_ids=[row.pk], actor="ops")
    assert batch is not None
    file = operator.post(path("admin", PayoutBatch), {"action": "export", "_selected_action": [batch.pk]})
    assert file.content.decode("utf-8-sig").splitlines() == [
        "withdrawal,payee,bank,account number,yuan",
        f"{row.pk},'=HYPERLINK(1),ICBC,6222000012345678,0.00018",
    ]


HIDDEN = (Commission, CommissionBack, CommissionTerms, ConsumptionBack, PayoutBatch, Withdrawal)


@pytest.mark.parametrize("model", HIDDEN)
def test_a_tenant_s_site_knows_no_commission(grove: Grove, model: type[Any]) -> None:
    with pytest.raises(NoReverseMatch):
        path("tenant_admin", model)


@pytest.mark.parametrize("model", [Account, Transfer, Entry, Hold, UsageRecord, DailyUsage])
def test_no_page_of_a_tenant_s_site_shows_a_share(grove: Grove, operator: Client, model: type[Any]) -> None:
    """Shares and what they leave the platform are unlike any other number here, so that they would be found."""
    shop = grove.shop
    wallet.credit_reseller_wallet(reseller_id=grove.child.pk, amount=987_654, ref="w", reason="", actor="t")
    wallet.allot(reseller_id=grove.child.pk, tenant_id=shop.tenant.pk, amount=1111, ref="a", reason="", actor="t")
    with scope.tenant(shop.tenant.pk):
        for hold in Hold.objects.filter(state="posted"):
            usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)
        rows = list(model.objects.order_by("pk"))
    client = member(grove)
    pages = client.get(path("tenant_admin", model)).content.decode()
    for row in rows:
        page = client.get(path("tenant_admin", model, "change", row.pk))
        assert page.status_code in {200, 404}  # a row that is not shown is not there
        pages += page.content.decode()
    secrets = ("0.00025", "0.000125", "0.002125", ">250<", ">125<", "2125", "4250")
    figures = re.sub(r"[\w-]{16,}", "", pages)  # ids and tokens have any four digits now and then
    assert [secret for secret in secrets if secret in figures] == []
    assert [name for name in (grove.child.slug, grove.parent.slug) if name in pages] == []
    if model in {Account, Entry, Transfer}:
        shown = client.get(path("tenant_admin", model)).context["cl"].queryset
        kinds = {str(getattr(row, "account", row).kind) for row in shown}
        forbidden = {"reseller_accrued", "platform_revenue", "reseller_pending", "reseller_wallet", "commission"}
        assert kinds & forbidden == set()
    assert operator.get(path("admin", model)).status_code == 200


def test_finance_says_what_it_sent_and_the_operator_finds_it(grove: Grove, operator: Client) -> None:
    client = member(grove, "finance")
    other = open_grove()
    form = client.get(path("tenant_admin", WalletTopUp, "add")).content.decode()
    assert ('name="yuan"' in form, 'name="tenant"' in form, 'name="reseller"' in form) == (True, False, False)
    filed = {"yuan": "50.5", "bank_reference": "ICBC 1", "tenant": other.shop.tenant.pk, "reseller": other.child.pk}
    assert client.post(path("tenant_admin", WalletTopUp, "add"), filed).status_code == 302
    with scope.tenant(grove.shop.tenant.pk):
        asked = WalletTopUp.objects.get()
    assert (asked.amount, asked.reseller_id, asked.state) == (50_500_000, None, "requested")
    act(client, WalletTopUp, "confirm", asked.pk, site="tenant_admin")
    before = wallet.balance_of(tenant_id=grove.shop.tenant.pk)
    assert act(operator, WalletTopUp, "confirm", asked.pk) == ["The top-up was confirmed. Rows: 1."]
    assert act(operator, WalletTopUp, "confirm", asked.pk) == ["The top-up was confirmed. Rows: 0."]
    assert wallet.balance_of(tenant_id=grove.shop.tenant.pk) == before + 50_500_000
    assert client.get(path("tenant_admin", WalletTopUp, "change", asked.pk)).status_code == 200
    assert member(other).get(path("tenant_admin", WalletTopUp, "change", asked.pk)).status_code == 404
    assert member(grove, "support").get(path("tenant_admin", WalletTopUp)).status_code == 403
    assert whole_audit() == []


def test_the_operator_files_for_a_reseller_and_another_decides(grove: Grove, operator: Client) -> None:
    add = path("admin", WalletTopUp, "add")
    both = {"tenant": grove.shop.tenant.pk, "reseller": grove.child.pk}
    for owner in ({}, both):
        answer = operator.post(add, {"yuan": "10", "bank_reference": "ICBC 2", **owner})
        assert (answer.status_code, bool(answer.context["adminform"].form.errors)) == (200, True)
    assert operator.post(add, {"yuan": "10", "bank_reference": "ICBC 2", "reseller": grove.child.pk}).status_code == 302
    with scope.platform("test"):
        asked = WalletTopUp.objects.get(reseller=grove.child)
    assert "Whoever asks does not decide" in act(operator, WalletTopUp, "confirm", asked.pk)[1]
    other = browser("localhost", make_operator())
    assert act(other, WalletTopUp, "reject", asked.pk) == ["A reason is wanted."]
    assert act(other, WalletTopUp, "reject", asked.pk, reason="nothing came") == ["The top-up was rejected. Rows: 1."]
    assert wallet.balance_of(reseller_id=grove.child.pk) == 0


def test_a_tenant_sets_when_it_is_told(grove: Grove, operator: Client) -> None:
    client = member(grove)
    assert client.post(path("tenant_admin", WalletNotice, "add"), {"yuan": "2000"}).status_code == 302
    with scope.tenant(grove.shop.tenant.pk):
        notice = WalletNotice.objects.get()
    assert notice.threshold == 2000 * YUAN
    page = client.get(path("tenant_admin", WalletNotice)).content.decode()
    assert ("¥2000.00" in page, "¥999.995" in page) == (True, True)
    change = path("tenant_admin", WalletNotice, "change", notice.pk)
    assert client.get(change).status_code == 200
    assert client.post(change, {"yuan": "1"}).status_code == 302
    assert client.post(change, {"yuan": "x"}).status_code == 200
    wallet.set_threshold(reseller_id=grove.child.pk, threshold=5)
    assert operator.get(path("admin", WalletNotice)).context["cl"].result_count >= 2
    assert client.get(path("tenant_admin", WalletNotice)).context["cl"].result_count == 1
    with scope.tenant(grove.shop.tenant.pk):
        assert WalletNotice.objects.get().threshold == YUAN


@pytest.mark.parametrize("model", [Commission, CommissionBack, Withdrawal, WalletTopUp, WalletNotice])
def test_the_operator_sees_every_row(grove: Grove, operator: Client, model: type[Any]) -> None:
    ask(grove)
    wallet.request_topup(tenant_id=grove.shop.tenant.pk, amount=1, bank_reference="x", requested_by_id=make_staff().pk)
    wallet.set_threshold(reseller_id=grove.child.pk, threshold=5)
    with scope.platform("test"):
        row, count = model.objects.latest("pk"), model.objects.count()
    page = operator.get(path("admin", model))
    assert (page.status_code, page.context["cl"].result_count) == (200, count)
    assert operator.get(path("admin", model, "change", row.pk)).status_code == 200
