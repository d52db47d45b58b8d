"""A reseller with a tenant of its own and a sub-reseller with another, both with rows of every kind that pages show."""

from dataclasses import dataclass
from datetime import date

from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from billing import commission, usage, wallet, withdrawal
from billing.models import Commission, Hold, Statement, WalletTopUp, Withdrawal
from billing.statements import Figures, Period
from billing.tests.conftest import Shop, open_shop
from tenants import scope
from tenants.models import Reseller, StaffUser
from tests.factories import YUAN, credit, make_partner, make_reseller, make_terms, unique

BANK_ACCOUNT = "6222000012345678"


@dataclass(frozen=True, kw_only=True)
class Trade:
    """What a reseller has, and what must never be seen by another."""

    reseller: Reseller
    child: Reseller
    own: Shop
    below: Shop
    withdrawal: Withdrawal
    top_up: WalletTopUp
    statement: Statement
    payee: str

    @property
    def secrets(self) -> list[str]:
        """Names that stand on this reseller's pages and on nobody else's."""
        named = [self.reseller.slug, self.child.slug, self.own.tenant.slug, self.below.tenant.slug]
        return [*named, self.payee, self.top_up.bank_reference, self.statement.number]


def open_trade() -> Trade:
    """Open it: 20 % of its own tenants' wholesale, 5 % of its children's, who get 10 %. Needs ENCRYPTION_KEYS."""
    reseller = make_reseller()
    child = make_reseller(parent=reseller)
    make_terms(reseller, own_ppm=200_000, parent_ppm=50_000, min_withdrawal=1)
    make_terms(child, own_ppm=100_000, min_withdrawal=1)
    own, below = open_shop(reseller=reseller), open_shop(reseller=child)
    for shop in (own, below):
        answer(shop)
    commission.fold_day(day=timezone.localdate())
    answer(own)
    _take_back(own)
    commission.release_matured()
    maker, payee = make_partner(reseller), unique("payee")
    wallet.credit_reseller_wallet(reseller_id=reseller.pk, amount=100 * YUAN, ref=unique("w"), reason="", actor="t")
    wallet.allot(reseller_id=reseller.pk, tenant_id=own.tenant.pk, amount=YUAN, ref=unique("a"), reason="", actor="t")
    wallet.set_threshold(reseller_id=reseller.pk, threshold=7 * YUAN)
    free(reseller)
    asked = withdrawal.request(
        reseller_id=reseller.pk, amount=1, payee=payee, bank="ICBC", bank_account=BANK_ACCOUNT, maker_id=maker.pk
    )
    filed = wallet.request_topup(
        reseller_id=reseller.pk, amount=3 * YUAN, bank_reference=unique("ICBC"), requested_by_id=maker.pk
    )
    return Trade(
        reseller=reseller,
        child=child,
        own=own,
        below=below,
        withdrawal=asked,
        top_up=filed,
        statement=make_statement(reseller),
        payee=payee,
    )


def answer(shop: Shop) -> None:
    """Let the shop's user pay for an answer, and record it."""
    credit(shop.user, 50_000)
    shop.settle(shop.admit())
    with scope.tenant(shop.tenant.pk):
        for hold in Hold.objects.filter(state="posted", recorded_at=None):
            usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)


def free(reseller: Reseller) -> None:
    """Let what was frozen mature."""
    with scope.platform("test"):
        Commission.objects.filter(reseller=reseller).update(release_at=timezone.now())
    commission.release_matured()


def _take_back(shop: Shop) -> None:
    commission.take_back(
        tenant_id=shop.tenant.pk, user_id=shop.user.pk, spent=500, ref=unique("refund"), reason="refund", actor="t"
    )
    commission.post_backs()


def make_statement(reseller: Reseller, month: date = date(2026, 1, 1)) -> Statement:
    """Keep a statement of a month in which nothing was sold."""
    period = Period.of_month(month, "Asia/Shanghai")
    figures = Figures(accounts=[], usage=[], commission={}).as_json()
    with scope.platform("test"):
        return Statement.objects.create(
            tenant=None,
            reseller=reseller,
            month=period.month,
            number=f"{period.month:%Y%m}-R-{reseller.slug}",
            figures={**figures, "period": period.as_json()},
        )


def browser(who: Reseller | StaffUser | None, *, host: str = "localhost", language: str = "en") -> Client:
    """Return a browser of a reseller's person, of someone else who is logged in, or of nobody."""
    client = Client(headers={"host": host, "accept-language": language})
    staff = make_partner(who) if isinstance(who, Reseller) else who
    if staff:
        client.force_login(staff)
    return client


def page(name: str, *args: object) -> str:
    """Return the address of a page of the portal."""
    return reverse(f"portal:{name}", args=args)


def said(answer: object) -> list[str]:
    """Return the messages that a page was answered with."""
    return [str(message) for message in get_messages(answer.wsgi_request)]  # type: ignore[attr-defined]
