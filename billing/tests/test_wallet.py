"""Wholesale wallets are filled by those who may, never overdrawn, and their people are told once when one runs low."""

from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
from django.core.mail import EmailMessage
from pytest_django import Settings
from structlog.testing import capture_logs

from billing import ledger, tasks, wallet
from billing.models import WalletNotice, WalletTopUp
from billing.tests.conftest import Shop
from billing.tests.resale import Grove, open_grove, whole_audit
from billing.tests.test_concurrency import together
from tenants import scope
from tenants.errors import ProductError
from tenants.models import Membership, Reseller, StaffUser
from tests.doubles.mail import picky_mail_server, refusing_mail_server
from tests.factories import YUAN, fill_wallet, make_operator, make_partner, make_reseller, make_staff, unique


@pytest.fixture
def grove(db: None) -> Iterator[Grove]:
    grove = open_grove()
    yield grove
    assert whole_audit() == []


@pytest.fixture
def committed_grove(committed_db: None) -> Iterator[Grove]:
    grove = open_grove()
    yield grove
    assert whole_audit() == []


def top_up(reseller: Reseller, amount: int = 100) -> None:
    wallet.credit_reseller_wallet(reseller_id=reseller.pk, amount=amount, ref=unique("r"), reason="paid", actor="ops")


def allot(reseller: Reseller, shop: Shop, amount: int = 10, ref: str = "") -> str:
    try:
        wallet.allot(
            reseller_id=reseller.pk,
            tenant_id=shop.tenant.pk,
            amount=amount,
            ref=ref or unique("ref"),
            reason="",
            actor="partner",
        )
    except ProductError as fault:
        return fault.type
    return "allotted"


def has(shop: Shop) -> int:
    return wallet.balance_of(tenant_id=shop.tenant.pk)


def test_an_operator_s_credit_happens_once(grove: Grove) -> None:
    for _ in range(3):
        wallet.credit_reseller_wallet(reseller_id=grove.child.pk, amount=7, ref="once", reason="paid", actor="ops")
    assert wallet.balance_of(reseller_id=grove.child.pk) == 7
    with pytest.raises(ledger.RefConflictError):
        wallet.credit_reseller_wallet(reseller_id=grove.child.pk, amount=8, ref="once", reason="paid", actor="ops")
    for wrong in (0, -1, 10**15 + 1):
        with pytest.raises(ValueError, match="whole micro-yuan"):
            top_up(grove.child, wrong)


def test_a_reseller_fills_its_own_and_its_children_s_tenants(grove: Grove) -> None:
    before = has(grove.shop)
    for reseller in (grove.child, grove.parent):
        top_up(reseller)
        assert allot(reseller, grove.shop, 40) == "allotted"
        assert wallet.balance_of(reseller_id=reseller.pk) == 60
    stranger, sibling = make_reseller(), make_reseller(parent=grove.parent)
    for other in (stranger, sibling):
        top_up(other)
        assert allot(other, grove.shop) == "tenant_not_found"
    assert has(grove.shop) == before + 80


def test_an_allotment_happens_once_and_never_overdraws(grove: Grove) -> None:
    top_up(grove.child, 50)
    before = has(grove.shop)
    assert [allot(grove.child, grove.shop, 30, "same") for _ in range(3)] == ["allotted"] * 3
    assert (has(grove.shop), wallet.balance_of(reseller_id=grove.child.pk)) == (before + 30, 20)
    with pytest.raises(ProductError) as short:
        wallet.allot(
            reseller_id=grove.child.pk, tenant_id=grove.shop.tenant.pk, amount=21, ref="more", reason="", actor="p"
        )
    assert (short.value.type, short.value.facts) == (
        "reseller_wallet_short",
        {"balance": "20", "needed": "21", "used": None, "limit": None},
    )


def test_fifty_allotments_with_money_for_seven(committed_grove: Grove) -> None:
    grove = committed_grove
    top_up(grove.child, 79)
    before = has(grove.shop)
    got = Counter(together([partial(allot, grove.child, grove.shop)] * 50))
    assert got == {"allotted": 7, "reseller_wallet_short": 43}
    assert (has(grove.shop), wallet.balance_of(reseller_id=grove.child.pk)) == (before + 70, 9)


def ask(shop: Shop | None = None, reseller: Reseller | None = None, **fields: object) -> WalletTopUp:
    who = {"tenant_id": shop.tenant.pk} if shop else {"reseller_id": reseller.pk if reseller else None}
    asked = {"amount": 50 * YUAN, "bank_reference": unique("ICBC"), "requested_by_id": make_staff().pk, **fields}
    return wallet.request_topup(**who, **asked)  # type: ignore[arg-type]  # of several types


def test_a_confirmed_request_fills_the_wallet_once(grove: Grove) -> None:
    before, checker = has(grove.shop), make_operator().pk
    for asked in (ask(grove.shop), ask(reseller=grove.child)):
        confirm = partial(wallet.confirm_topup, topup_id=asked.pk, decided_by_id=checker)
        assert [confirm(), confirm()] == [True, False]
        assert wallet.reject_topup(topup_id=asked.pk, decided_by_id=checker, note="late") is False
    assert has(grove.shop) == before + 50 * YUAN
    assert wallet.balance_of(reseller_id=grove.child.pk) == 50 * YUAN


def test_a_rejected_request_fills_nothing(grove: Grove) -> None:
    before, asked, checker = has(grove.shop), ask(grove.shop), make_operator().pk
    assert wallet.reject_topup(topup_id=asked.pk, decided_by_id=checker, note="nothing came") is True
    assert wallet.confirm_topup(topup_id=asked.pk, decided_by_id=checker) is False
    assert has(grove.shop) == before


def test_whoever_asks_for_a_top_up_does_not_decide(grove: Grove) -> None:
    operator = make_operator()
    asked = ask(grove.shop, requested_by_id=operator.pk)
    for who, why in ((operator, "checker_is_maker"), (make_partner(grove.child), "checker_not_operator")):
        with pytest.raises(ProductError) as refused:
            wallet.confirm_topup(topup_id=asked.pk, decided_by_id=who.pk)
        assert refused.value.type == why


def test_a_bank_transfer_fills_one_wallet(grove: Grove) -> None:
    """Whoever claims it second, another tenant or the same, has to name another."""
    checker, reference = make_operator().pk, unique("ICBC")
    first, second = ask(grove.shop, bank_reference=reference), ask(reseller=grove.child, bank_reference=reference)
    assert wallet.confirm_topup(topup_id=first.pk, decided_by_id=checker)
    with pytest.raises(ProductError) as refused:
        wallet.confirm_topup(topup_id=second.pk, decided_by_id=checker)
    assert refused.value.type == "bank_reference_used"
    assert wallet.reject_topup(topup_id=second.pk, decided_by_id=checker, note="claimed before")
    assert wallet.balance_of(reseller_id=grove.child.pk) == 0


def test_ten_confirmations_at_once_fill_once(committed_grove: Grove) -> None:
    before, asked = has(committed_grove.shop), ask(committed_grove.shop)
    checkers = [make_operator().pk for _ in range(10)]
    jobs = [partial(wallet.confirm_topup, topup_id=asked.pk, decided_by_id=checker) for checker in checkers]
    assert Counter(together(jobs)) == {True: 1, False: 9}
    assert has(committed_grove.shop) == before + 50 * YUAN


@pytest.mark.parametrize("reference", ["", "  ", "x" * 81, "a\0b"])
def test_a_request_needs_a_reference(grove: Grove, reference: str) -> None:
    with pytest.raises(ProductError) as refused:
        ask(grove.shop, bank_reference=reference)
    assert refused.value.type == "bank_reference_invalid"


def test_a_wallet_has_one_owner(grove: Grove) -> None:
    with pytest.raises(ValueError, match="a tenant's or a reseller's"):
        wallet.set_threshold(threshold=1)
    with pytest.raises(ValueError, match="a tenant's or a reseller's"):
        wallet.set_threshold(tenant_id=grove.shop.tenant.pk, reseller_id=grove.child.pk, threshold=1)


def reachable(staff: StaffUser, **fields: object) -> str:
    address = f"{staff.username}@example.com"
    StaffUser.objects.filter(pk=staff.pk).update(email=address, **fields)
    return address


@pytest.fixture
def people(grove: Grove) -> list[str]:
    """Those who are to be told of the shop's wallet, among others who are not."""
    told = [reachable(make_staff(grove.shop.tenant, role=role)) for role in ("owner", "finance")]
    reachable(make_staff(grove.shop.tenant, role=Membership.Role.SUPPORT))
    reachable(make_staff(grove.shop.tenant), is_active=False)
    make_staff(grove.shop.tenant)  # has no address
    return told


def test_a_low_wallet_is_told_once_until_it_is_filled(
    grove: Grove, people: list[str], mailoutbox: list[EmailMessage]
) -> None:
    wallet.set_threshold(tenant_id=grove.shop.tenant.pk, threshold=1000 * YUAN)
    assert tasks.notify_low_wallets() == 0  # it has exactly as much
    grove.answer()
    assert [tasks.notify_low_wallets() for _ in range(3)] == [1, 0, 0]
    assert [mail.to for mail in mailoutbox] == [[address] for address in people]
    assert mailoutbox[0].subject == f"The wholesale wallet of {grove.shop.tenant.name} runs low"
    assert str(mailoutbox[0].body) == (
        f"{grove.shop.tenant.name} has ¥999.9975 left in its wholesale wallet, less than ¥1000.00.\n"
        "Without credit its answers stop. Please top it up."
    )
    fill_wallet(grove.shop.tenant, 10 * YUAN)
    assert tasks.notify_low_wallets() == 0
    with scope.tenant(grove.shop.tenant.pk):
        assert WalletNotice.objects.get().notified_at is None
    wallet.set_threshold(tenant_id=grove.shop.tenant.pk, threshold=2000 * YUAN)
    assert [tasks.notify_low_wallets() for _ in range(2)] == [1, 0]
    assert len(mailoutbox) == 4


def test_another_threshold_is_judged_anew(grove: Grove, people: list[str], mailoutbox: list[EmailMessage]) -> None:
    for threshold in (2000 * YUAN, 2000 * YUAN, 3000 * YUAN):
        wallet.set_threshold(tenant_id=grove.shop.tenant.pk, threshold=threshold)
        tasks.notify_low_wallets()
    assert len(mailoutbox) == 4


def test_a_reseller_s_people_are_told_in_their_language(grove: Grove, mailoutbox: list[EmailMessage]) -> None:
    staff = make_partner(grove.child, language="en")
    other = make_partner(grove.parent)
    mine, _ = reachable(staff), reachable(other)
    top_up(grove.child, 5)
    wallet.set_threshold(reseller_id=grove.child.pk, threshold=6)
    assert [tasks.notify_low_wallets() for _ in range(2)] == [1, 0]
    assert [(mail.to, mail.subject) for mail in mailoutbox] == [
        ([mine], f"The wholesale wallet of {grove.child.name} runs low")
    ]


def test_a_mail_server_that_is_away_loses_no_notice(
    grove: Grove, people: list[str], settings: Settings, mailoutbox: list[EmailMessage]
) -> None:
    wallet.set_threshold(tenant_id=grove.shop.tenant.pk, threshold=2000 * YUAN)
    with refusing_mail_server() as port:
        kept = settings.EMAIL_BACKEND
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", port, 5
        assert tasks.notify_low_wallets() == 0
        settings.EMAIL_BACKEND = kept
    assert tasks.notify_low_wallets() == 1
    assert len(mailoutbox) == 2


def test_an_address_that_is_refused_keeps_the_notice_from_nobody_else(
    grove: Grove, people: list[str], settings: Settings
) -> None:
    wallet.set_threshold(tenant_id=grove.shop.tenant.pk, threshold=2000 * YUAN)
    with picky_mail_server(unknown=people[0]) as (port, taken), capture_logs() as logs:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", port, 5
        assert [tasks.notify_low_wallets() for _ in range(2)] == [1, 0]
    assert taken == people[1:]
    assert [line["event"] for line in logs] == ["notice_not_mailed", "low_wallet_told"]
