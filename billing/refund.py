"""Refunds: money goes back to the payer, and the balance that it bought is taken back.

    refundable        what of an order can go back, and what its user would have to give for it
    request_refund    staff refunds an order: through the provider, by hand, or as the provider has forced it
    settle_refund     the one place where what a provider says of a refund counts: by notification or by asking
    check_refund      ask the provider for one refund, and ask again for what it does not know
    poll_refunds      `check_refund` for every refund that is due, of all tenants

A refund has one transfer when it is requested (REFUND: off the balance, to the refunds owed), and one when it ends:
paid (REFUND_PAID: off the clearing account) or failed (REFUND_FAILED: the first one's mirror).

Calls to a provider are never made within a transaction. Lock order: the order, the refund, then as in
`billing.ledger`.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

import structlog
from django.db import transaction
from django.db.models import Q, Sum
from django.db.models.functions import Coalesce, Now
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from billing import commission, ledger, plans, recharge
from billing.ledger import Movement, UserAccounts
from billing.models import Account, AccountKind, Entry, MerchantAccount, Order, PaymentEvent, Refund, Transfer
from billing.models.recharge import FEN
from billing.payments import provider_of
from billing.payments.provider import PaymentError, ProviderRefusedError, RefundNotice
from billing.yuan import show_yuan
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import Domain, Tenant

log = structlog.get_logger(__name__)

# When a refund under way is asked for: first after a minute, then after half its age again, at least twice a day. Money
# may take days to a bank card.
POLL_SECONDS: Final = 60
LONGEST_POLL_SECONDS: Final = 12 * 60 * 60
_POLL_BATCH: Final = 50
_ACTOR_LENGTH: Final = 120


class Worth(NamedTuple):
    """An amount of money and what it bought: balance and gift balance, all micro-yuan."""

    money: int
    credits: int
    bonus: int

    def share(self, amount: int) -> "Worth":
        """Return the part that `amount` of the money stands for, rounded down; all of it for all of the money.

        Taken again and again from what is left, the parts sum up exactly: the last one has the remainders.
        """
        return Worth(amount, self.credits * amount // self.money, self.bonus * amount // self.money)


@dataclass(frozen=True, kw_only=True)
class GiveBack:
    """Where the worth of a refund is taken from the user; `shortfall` is what is not there any more."""

    gift: int
    cash: int
    shortfall: int


@dataclass(frozen=True, kw_only=True)
class Refundable:
    """What of an order can go back now, micro-yuan.

    `left` is what has not been refunded of the price, with its worth; `largest` is as much of it as the user's balance
    covers.
    """

    left: Worth
    largest: int
    accounts: UserAccounts

    def give_back(self, amount: int, *, forced: bool = False) -> GiveBack:
        """Return what a refund of `amount` takes from the user."""
        return _give_back(self.left.share(amount), self.accounts, forced=forced)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What someone wants refunded. `number` makes asking twice one refund; `refund_id` is the provider's number."""

    kind: Refund.Kind
    amount: int
    reason: str
    actor: str
    number: uuid.UUID
    refund_id: str = ""


def refundable(order: Order) -> Refundable:
    """Return what can go back of an order, as it is now; in the order's tenant's scope."""
    with transaction.atomic():
        accounts = ledger.lock_user_accounts(tenant_id=order.tenant_id, user_id=order.user_id)
        left = _left(order)
        return Refundable(left=left, largest=_largest(left, accounts), accounts=accounts)


def request_refund(  # noqa: PLR0913  what, how, and the things an auditor asks for
    *,
    tenant_id: int,
    order_id: uuid.UUID,
    amount: int,
    kind: Literal["provider", "manual", "forced"],
    reason: str,
    actor: str,
    refund_id: str = "",
    number: uuid.UUID | None = None,
) -> Refund:
    """Refund `amount` of a paid order, outside of transactions; return the refund as it then is.

    "provider" asks the payment provider, "manual" books what was paid by hand, "forced" books what the provider has
    taken back already under `refund_id`, its number: that one cannot be refused, and what the user has spent is the
    tenant's loss. The same `number`, or the same `refund_id` of an order, refunds once.

    Raises ProductError for staff: NOT_FOUND "order_not_found", INVALID "order_not_paid", "refund_too_large" or
    "refund_not_covered"; ValueError for an amount that is not in whole fen, or without a reason;
    ledger.RefConflictError for a `number` that was used for another refund.
    """
    if amount < FEN or amount % FEN or not reason.strip() or (kind == "forced") != bool(refund_id):
        raise ValueError("a refund is of whole fen, has a reason, and the provider's number if it is forced")
    claim = Claim(
        kind=Refund.Kind(kind),
        amount=amount,
        reason=reason,
        actor=actor,
        number=number or uuid7(),
        refund_id=refund_id,
    )
    with scope.tenant(tenant_id):
        refund, is_new = _open(order_id, claim)
        if is_new and refund.state == Refund.State.REQUESTED:
            try:
                _ask(refund)
            except PaymentError as fault:
                log.warning("refund not asked for, the sweep will", refund=str(refund.pk), fault=str(fault))
        return _loaded(refund.pk)


def settle_refund(*, account: MerchantAccount, notice: RefundNotice) -> PaymentEvent:
    """Take what a provider vouches for, once, however often and by however many it is told; return the event.

    What fits no refund, or not exactly, changes nothing; it is judged again when it is told again.
    """
    with scope.tenant(account.tenant_id), transaction.atomic():
        order = Order.objects.select_for_update().filter(out_trade_no=notice.out_trade_no).first()
        refund = _named(order, notice) if order is not None else None
        event, is_new = PaymentEvent.objects.get_or_create(
            tenant_id=account.tenant_id,
            merchant_account=account,
            event_id=notice.event_id,
            defaults={
                "order": order,
                "body_digest": notice.body_digest,
                "outcome": PaymentEvent.Outcome.UNKNOWN_REFUND,
            },
        )
        if not is_new and event.is_taken:
            return event
        event.order, event.body_digest = order, notice.body_digest
        event.outcome = _judge(order, refund, account, notice)
        if order is not None:
            _follow(event.outcome, order, refund, notice)
        event.save(update_fields=["order", "body_digest", "outcome"])
    say = log.info if event.is_taken else log.error
    say("refund", outcome=event.outcome, order_number=notice.out_trade_no, refund_number=notice.out_refund_no)
    return event


def check_refund(refund: Refund) -> None:
    """Ask the provider what became of a refund, and ask for it again if the provider does not know it.

    In the refund's tenant's scope, outside of transactions. Raises PaymentError where the provider does not help.
    """
    account = refund.order.merchant_account
    notice = provider_of(account).query_refund(refund)
    if notice is None:
        _ask(refund)
    else:
        settle_refund(account=account, notice=notice)


def poll_refunds() -> int:
    """Check every refund that is due, in all tenants; return how many were. Several may run at once.

    When to ask next is committed before asking, so that a process that dies here delays a refund and loses none.
    """
    with scope.platform("refunds nobody told us about, in every tenant"):
        due = _claim_due()
    for tenant_id, refund_id in due:
        with scope.tenant(tenant_id):
            try:
                check_refund(_loaded(refund_id))
            except PaymentError as fault:
                log.warning("refund not checked", refund=str(refund_id), fault=str(fault))
            except ledger.LedgerError:
                log.exception("refund cannot be ended", refund=str(refund_id))
    return len(due)


def _ask(refund: Refund) -> None:
    """Ask the provider for a refund, and settle what it says.

    A refusal counts only if the provider then does not know the refund: an earlier request, whose answer was lost, may
    have been taken.
    """
    account = refund.order.merchant_account
    provider = provider_of(account)
    try:
        notice = provider.refund(refund, notify_url=_notify_url(account))
    except ProviderRefusedError as refusal:
        known = provider.query_refund(refund)
        if known is None:
            _refused(refund, refusal.code)
            return
        notice = known
    settle_refund(account=account, notice=notice)


def _notify_url(account: MerchantAccount) -> str:
    """Return where the provider tells of the refund: at the tenant's first domain, "" if it has none."""
    host = Domain.objects.filter(tenant_id=account.tenant_id).order_by("pk").values_list("host", flat=True).first()
    tenant = Tenant.objects.get(pk=account.tenant_id)
    return f"https://{host}{recharge.notify_path(tenant=tenant, account=account)}" if host else ""


@transaction.atomic
def _open(order_id: uuid.UUID, claim: Claim) -> tuple[Refund, bool]:
    """Return the refund of a claim, and whether it is new. The order is locked: refunds are counted one by one."""
    order = Order.objects.select_for_update().filter(pk=order_id).first()
    if order is None:
        raise ProductError(ErrorCode.NOT_FOUND, _("There is no such order."), type="order_not_found")
    same = Q(pk=claim.number)
    if claim.refund_id:
        same |= Q(order=order, refund_id=claim.refund_id)
    known = Refund.objects.filter(same).first()
    if known is not None:
        if (known.order_id, known.amount) != (order.pk, claim.amount):
            raise ledger.RefConflictError(f"refund {known.pk} is another one")
        return known, False
    _require_left(order, claim.amount)
    return _book(order, claim), True


def _require_left(order: Order, amount: int) -> None:
    if order.state != Order.State.PAID:
        raise ProductError(ErrorCode.INVALID, _("This order has not been paid."), type="order_not_paid", scope="order")
    left = _left(order).money
    if amount > left:
        raise ProductError(
            ErrorCode.INVALID,
            _("Of this order ¥%(left)s can be refunded.") % {"left": show_yuan(left)},
            type="refund_too_large",
            scope="order",
            left=str(left),
        )


def _left(order: Order) -> Worth:
    """Return what has not been refunded of an order: nothing of one that is not paid. Exact where it is locked."""
    if order.state != Order.State.PAID:
        return Worth(0, 0, 0)
    gone = Refund.objects.filter(order=order).exclude(state=Refund.State.FAILED)
    sums = gone.aggregate(
        money=Coalesce(Sum("amount"), 0), credits=Coalesce(Sum("credits_back"), 0), bonus=Coalesce(Sum("bonus_back"), 0)
    )
    return Worth(order.price - sums["money"], order.credits - sums["credits"], order.bonus - sums["bonus"])


def _give_back(worth: Worth, accounts: UserAccounts, *, forced: bool) -> GiveBack:
    """Split what a user gives back: bonus off the gift balance as far as it goes, all else off the balance.

    What was given away pays for no refund of ours: else gifts could be turned into money. Where the money is gone
    already, the rest of the gift balance goes too.
    """
    gift = min(worth.bonus, accounts.gift.available)
    cash = min(worth.credits + worth.bonus - gift, accounts.cash.available)
    if forced:
        gift = min(worth.credits + worth.bonus - cash, accounts.gift.available)
    return GiveBack(gift=gift, cash=cash, shortfall=worth.credits + worth.bonus - gift - cash)


def _largest(left: Worth, accounts: UserAccounts) -> int:
    """Return the largest refund in whole fen that the user's balance covers: more money never wants less balance."""
    least, most = 0, left.money // FEN
    while least < most:
        middle = (least + most + 1) // 2
        if _give_back(left.share(middle * FEN), accounts, forced=False).shortfall:
            most = middle - 1
        else:
            least = middle
    return least * FEN


def _book(order: Order, claim: Claim) -> Refund:
    """Write a refund of a locked order and take its worth back; end it if nobody has to be asked."""
    accounts = ledger.lock_user_accounts(tenant_id=order.tenant_id, user_id=order.user_id)
    left, is_forced = _left(order), claim.kind == Refund.Kind.FORCED
    worth = left.share(claim.amount)
    taken = _give_back(worth, accounts, forced=is_forced)
    if taken.shortfall and not is_forced:
        raise _not_covered(_largest(left, accounts))
    refund = Refund(
        tenant_id=order.tenant_id,
        id=claim.number,
        order=order,
        out_refund_no=claim.number.hex,
        kind=claim.kind,
        amount=worth.money,
        credits_back=worth.credits,
        bonus_back=worth.bonus,
        shortfall=taken.shortfall,
        reason=claim.reason[:80],
        requested_by=claim.actor[:160],
        refund_id=claim.refund_id,
        next_poll_at=Now() + timedelta(seconds=POLL_SECONDS),
    )
    refund.save(force_insert=True)
    reversal = _reversal(refund, accounts, taken)
    if claim.kind != Refund.Kind.PROVIDER:
        both = [*reversal, *_payment(refund)]
        ledger.lock_in_order(accounts={row.account.pk: row.account for row in both if row.amount}.values())
    _move(refund, Transfer.Kind.REFUND, reversal)
    if claim.kind != Refund.Kind.PROVIDER:
        _pay(refund)
    return _loaded(refund.pk)


def _reversal(refund: Refund, accounts: UserAccounts, taken: GiveBack) -> list[Movement]:
    """Return the mirror of what was posted for the paid order, in the refund's share.

    A plan's order bought no balance: all of its price is the tenant's revenue, and so is all that goes back.
    """
    tenant_id = refund.tenant_id
    movements = [
        Movement(account=accounts.gift, amount=-taken.gift),
        Movement(account=accounts.cash, amount=-taken.cash),
        Movement(account=_shortfall(tenant_id), amount=-taken.shortfall),
        Movement(account=_owed(refund), amount=refund.amount),
        Movement(account=ledger.clearing_account(tenant_id=tenant_id, channel=ledger.GIFT), amount=refund.bonus_back),
    ]
    kept = refund.amount - refund.credits_back
    if kept < 0:
        discount = ledger.clearing_account(tenant_id=tenant_id, channel=ledger.DISCOUNT)
        movements.append(Movement(account=discount, amount=-kept))
    if kept > 0:
        movements.append(Movement(account=ledger.tenant_accounts(tenant_id=tenant_id).revenue, amount=-kept))
    return movements


def _shortfall(tenant_id: int) -> Account:
    return ledger.channel_account(tenant_id=tenant_id, kind=AccountKind.SHORTFALL, channel=ledger.REFUND_SHORTFALL)


def _owed(refund: Refund) -> Account:
    channel = refund.clearing_channel
    return ledger.channel_account(tenant_id=refund.tenant_id, kind=AccountKind.REFUND_PAYABLE, channel=channel)


def _pay(refund: Refund, *, refund_id: str = "") -> None:
    """End a refund of a locked order as paid: what was owed has left the clearing account, and a plan ends."""
    plans.end_for_refund(tenant_id=refund.tenant_id, order_id=refund.order_id, amount=refund.amount)
    _end(refund, Refund.State.DONE, refund_id=refund_id)
    _move(refund, Transfer.Kind.REFUND_PAID, _payment(refund))
    _take_back_earnings(refund, spent=refund.shortfall)


def _payment(refund: Refund) -> list[Movement]:
    """Return how what is owed leaves the clearing account."""
    clearing = ledger.clearing_account(tenant_id=refund.tenant_id, channel=refund.clearing_channel)
    return [
        Movement(account=_owed(refund), amount=-refund.amount),
        Movement(account=clearing, amount=refund.amount),
    ]


def _return(refund: Refund, *, failure: str = "", refund_id: str = "") -> None:
    """End a refund of a locked order as failed: everything goes back where it was taken."""
    _end(refund, Refund.State.FAILED, refund_id=refund_id, failure=failure)
    taken = Entry.objects.filter(transfer__kind=Transfer.Kind.REFUND, transfer__ref=str(refund.pk))
    movements = [
        Movement(account=entry.account, amount=-entry.amount) for entry in taken.select_related("account", "transfer")
    ]
    _move(refund, Transfer.Kind.REFUND_FAILED, movements)


def _end(refund: Refund, state: Refund.State, *, refund_id: str, failure: str = "") -> None:
    """Note how a refund ended, once."""
    under_way = Refund.objects.filter(pk=refund.pk, state=Refund.State.REQUESTED)
    said = {"refund_id": refund_id} if refund_id else {}
    changed = under_way.update(state=state, ended_at=Now(), next_poll_at=None, failure=failure[:80], **said)
    if changed != 1:
        raise ledger.LedgerError(f"refund {refund.pk} has ended already")


def _move(refund: Refund, kind: Transfer.Kind, movements: list[Movement]) -> None:
    ledger.move(
        tenant_id=refund.tenant_id,
        kind=kind,
        ref=str(refund.pk),
        reason=refund.reason,
        actor=refund.requested_by[:_ACTOR_LENGTH],
        movements=movements,
    )


def _take_back_earnings(refund: Refund, *, spent: int) -> None:
    """Take back what resellers earned by the payment; the last step on the ledger.

    `spent` is what of the refund's worth its user had consumed and nobody pays for now, micro-yuan: 0 unless the refund
    was forced, because else the balance covers it and what was consumed stays paid. Where it is not 0, the user's
    accounts are locked by now. An invitation's rewards are taken back by `billing.rewards`, which looks for refunds.
    """
    log.info("refund paid", refund=str(refund.pk), amount=refund.amount, spent=spent)
    if spent:
        commission.take_back(
            tenant_id=refund.tenant_id,
            user_id=refund.order.user_id,
            spent=spent,
            ref=str(refund.pk),
            reason=refund.reason,
            actor=refund.requested_by,
        )


def _refused(refund: Refund, code: str) -> None:
    """Fail a refund that the provider refuses, unless it has ended meanwhile."""
    with transaction.atomic():
        Order.objects.select_for_update().get(pk=refund.order_id)
        found = Refund.objects.select_for_update().get(pk=refund.pk)
        if found.state == Refund.State.REQUESTED:
            _return(found, failure=code)
    log.warning("refund refused by the provider", refund=str(refund.pk), code=code)


def _named(order: Order, notice: RefundNotice) -> Refund | None:
    """Lock and return the refund that a notice is of, if it is the order's."""
    refunds = Refund.objects.select_for_update().filter(order=order)
    if notice.out_refund_no:
        return refunds.filter(out_refund_no=notice.out_refund_no).first()
    return refunds.filter(refund_id=notice.refund_id).first() if notice.refund_id else None


def _judge(
    order: Order | None, refund: Refund | None, account: MerchantAccount, notice: RefundNotice
) -> PaymentEvent.Outcome:
    """Compare what a provider says with the order and the refund that it names."""
    outcome = PaymentEvent.Outcome
    if order is None:
        return outcome.UNKNOWN_ORDER
    # An empty app id is one that the provider does not tell of.
    other_app = notice.app_id not in {"", order.app_id}
    if other_app or (order.merchant_account_id, order.merchant_id) != (account.pk, notice.merchant_id):
        return outcome.OTHER_MERCHANT
    if notice.currency != "CNY":
        return outcome.OTHER_AMOUNT
    return _judge_forced(order, notice) if refund is None else _judge_ours(refund, notice)


def _judge_ours(refund: Refund, notice: RefundNotice) -> PaymentEvent.Outcome:
    outcome = PaymentEvent.Outcome
    if refund.amount != notice.amount:
        return outcome.OTHER_AMOUNT
    others = Refund.objects.filter(order_id=refund.order_id).exclude(pk=refund.pk)
    if notice.refund_id and others.filter(refund_id=notice.refund_id).exists():
        return outcome.OTHER_TRANSACTION
    if refund.state == Refund.State.REQUESTED:
        return {"done": outcome.REFUNDED, "failed": outcome.RETURNED, "pending": outcome.UNDER_WAY}[notice.state]
    return outcome.REPEATED if notice.state in {"pending", refund.state} else outcome.OTHER_END


def _judge_forced(order: Order, notice: RefundNotice) -> PaymentEvent.Outcome:
    """Judge a refund that is not ours: only the provider's own are believed, and only once the money is gone."""
    outcome = PaymentEvent.Outcome
    if not notice.forced or notice.out_refund_no or not notice.refund_id:
        return outcome.UNKNOWN_REFUND
    if notice.state != "done":
        return outcome.UNDER_WAY
    fits = FEN <= notice.amount <= _left(order).money
    return outcome.REFUNDED if fits else outcome.OTHER_AMOUNT


def _follow(outcome: PaymentEvent.Outcome | str, order: Order, refund: Refund | None, notice: RefundNotice) -> None:
    """Do what was judged; a forced refund is made here."""
    match PaymentEvent.Outcome(outcome):
        case PaymentEvent.Outcome.REFUNDED if refund is None:
            claim = Claim(
                kind=Refund.Kind.FORCED,
                amount=notice.amount,
                reason="",
                actor=recharge.ACTOR,
                number=uuid7(),
                refund_id=notice.refund_id,
            )
            _book(order, claim)
        case PaymentEvent.Outcome.REFUNDED if refund is not None:
            _pay(refund, refund_id=notice.refund_id)
        case PaymentEvent.Outcome.RETURNED if refund is not None:
            _return(refund, refund_id=notice.refund_id)
        case PaymentEvent.Outcome.UNDER_WAY if refund is not None and notice.refund_id:
            Refund.objects.filter(pk=refund.pk).update(refund_id=notice.refund_id)
        case _:
            pass


def _not_covered(largest: int) -> ProductError:
    return ProductError(
        ErrorCode.INVALID,
        _("The user has spent a part of it: ¥%(largest)s can be refunded at most.") % {"largest": show_yuan(largest)},
        type="refund_not_covered",
        scope="user",
        largest=str(largest),
    )


def _loaded(refund_id: uuid.UUID) -> Refund:
    return Refund.objects.select_related("order__merchant_account").get(pk=refund_id)


@transaction.atomic
def _claim_due() -> list[tuple[int, uuid.UUID]]:
    """Return the refunds that are due, after setting when each is due next; others' claims are passed by."""
    under_way = Refund.objects.filter(state=Refund.State.REQUESTED, next_poll_at__lte=Now())
    due = under_way.annotate(now=Now()).select_for_update(skip_locked=True).order_by("next_poll_at")[:_POLL_BATCH]
    claimed = list(due)
    for refund in claimed:
        Refund.objects.filter(pk=refund.pk).update(next_poll_at=_next_poll(refund, refund.now))
    return [(refund.tenant_id, refund.pk) for refund in claimed]


def _next_poll(refund: Refund, now: datetime) -> datetime:
    """Return when to ask next: the older a refund, the longer the wait."""
    wait = (now - refund.created_at).total_seconds() / 2
    return now + timedelta(seconds=min(max(wait, POLL_SECONDS), LONGEST_POLL_SECONDS))
