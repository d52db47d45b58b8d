"""A reseller takes its commission out: asked for by one person, decided by another, paid by the bank in batches.

    request          the amount leaves the reseller's balance and waits
    approve, reject  the operator's decision, never the asker's own
    make_batch       approved withdrawals that are paid out together
    batch_rows       the lines of the batch's file for the bank
    mark_sent        the file is at the bank
    paid, failed     what the bank did: the money is gone, or returned to the reseller

State by conditional UPDATE whose row count is checked: of two who decide at once, one does. Not in a tenant's scope.
Lock order: the withdrawal, then as in `billing.ledger`.
"""

import uuid
from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from billing import ledger, notices, pricing
from billing.commission_terms import terms_of
from billing.ledger import Movement
from billing.models import AccountKind, PayoutBatch, Transfer, Withdrawal
from billing.models.resale import MIN_WITHDRAWAL
from billing.yuan import show_yuan
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.letters import Letter
from tenants.models import Notice, StaffUser

log = structlog.get_logger(__name__)

# The platform's own clearing account, which mirrors what left its bank account.
PAYOUT: Final = "payout"
_TEXT_LENGTH: Final = 120
_NOTE_LENGTH: Final = 200  # of the column
State = Withdrawal.State


def request(  # noqa: PLR0913  who, how much, and where to
    *,
    reseller_id: int,
    amount: int,
    payee: str,
    bank: str,
    bank_account: str,
    maker_id: int,
    number: uuid.UUID | None = None,
) -> Withdrawal:
    """Ask to be paid `amount` micro-yuan of free commission; the fee comes out of it, rounded down.

    `maker_id` is the staff user who asks; that they may is the caller's business. What is asked with a `number` is
    asked once: the reseller's withdrawal of that number is returned, however often its form was sent.

    Raises ProductError INVALID
    "withdrawal_below_minimum" (`minimum`), "withdrawal_beyond_balance" (`available`: what is owed counts against
    it), "payout_account_invalid".
    """
    details = _details(payee=payee, bank=bank, bank_account=bank_account)
    terms = terms_of(reseller_id=reseller_id)
    _require_minimum(amount, terms.min_withdrawal if terms else MIN_WITHDRAWAL)
    fee = pricing.share(amount=amount, ppm=terms.withdrawal_fee_ppm if terms else 0)
    maker = StaffUser.objects.get(pk=maker_id)
    with scope.platform("a reseller's own accounts"), transaction.atomic():
        asked, is_new = Withdrawal.objects.get_or_create(
            pk=number or uuid7(),
            reseller_id=reseller_id,
            defaults={"amount": amount, "fee": fee, "maker": maker, **details},
        )
        if not is_new:
            return asked
        _require_available(reseller_id, amount)
        _move(
            asked,
            Transfer.Kind.WITHDRAWAL,
            maker.username,
            _of(asked, AccountKind.RESELLER_AVAILABLE, -amount),
            _of(asked, AccountKind.WITHDRAWAL_PAYABLE, amount),
        )
    log.info("withdrawal_requested", withdrawal=str(asked.pk), reseller=reseller_id, staff=maker_id)
    with scope.platform("a notice to the operator"):
        notices.tell(kind=Notice.Kind.WITHDRAWAL, write=partial(_wanted, asked))
    return asked


def approve(*, withdrawal_id: uuid.UUID, checker_id: int) -> bool:
    """Decide that it will be paid; False if it was decided before.

    Raises ProductError INVALID "checker_is_maker", "checker_not_operator".
    """
    asked = _checked(withdrawal_id, checker_id)
    mine = Withdrawal.objects.filter(pk=asked.pk, state=State.REQUESTED)
    changed = mine.update(state=State.APPROVED, checker_id=checker_id, decided_at=Now()) == 1
    log.info("withdrawal_approved", withdrawal=str(asked.pk), staff=checker_id, changed=changed)
    _tell_reseller(asked.pk, changed=changed)
    return changed


def reject(*, withdrawal_id: uuid.UUID, checker_id: int, reason: str) -> bool:
    """Decide that it will not be paid, and return the amount; False if it was decided before. Raises as `approve`."""
    asked = _checked(withdrawal_id, checker_id)
    checker = StaffUser.objects.get(pk=checker_id)
    with scope.platform("a reseller's own accounts"), transaction.atomic():
        mine = Withdrawal.objects.filter(pk=asked.pk, state=State.REQUESTED)
        decided = {"checker": checker, "decided_at": Now(), "ended_at": Now(), "note": reason[:_NOTE_LENGTH]}
        changed = mine.update(state=State.REJECTED, **decided) == 1
        if changed:
            _give_back(asked, checker.username)
    log.info("withdrawal_rejected", withdrawal=str(asked.pk), staff=checker_id, changed=changed)
    _tell_reseller(asked.pk, changed=changed)
    return changed


def make_batch(*, withdrawal_ids: Sequence[uuid.UUID] | None = None, actor: str) -> PayoutBatch | None:
    """Put approved withdrawals (all of them) that are in no batch into a new one; None where there are none."""
    with transaction.atomic():
        chosen = Q() if withdrawal_ids is None else Q(pk__in=withdrawal_ids)
        loose = Withdrawal.objects.filter(chosen, state=State.APPROVED, batch=None)
        found = list(loose.select_for_update().order_by("pk").values_list("pk", flat=True))
        if not found:
            return None
        batch = PayoutBatch.objects.create(created_by=actor)
        Withdrawal.objects.filter(pk__in=found).update(batch=batch)
    log.info("payout_batch_made", batch=batch.pk, withdrawals=len(found), actor=actor)
    return batch


def batch_rows(*, batch_id: int) -> list[tuple[str, ...]]:
    """Return a line of the bank's file for each withdrawal: its number, where to, and what the payee gets, in yuan."""
    rows = Withdrawal.objects.filter(batch_id=batch_id).order_by("pk")
    return [(str(row.pk), row.payee, row.bank, row.bank_account, show_yuan(row.payout)) for row in rows]


def mark_sent(*, batch_id: int, actor: str) -> bool:
    """Say that the batch's file is at the bank; False if that was said before."""
    with transaction.atomic():
        changed = PayoutBatch.objects.filter(pk=batch_id, sent_at=None).update(sent_at=Now(), sent_by=actor) == 1
        if changed:
            Withdrawal.objects.filter(batch_id=batch_id, state=State.APPROVED).update(state=State.SENT)
    log.info("payout_batch_sent", batch=batch_id, actor=actor, changed=changed)
    return changed


def paid(*, withdrawal_id: uuid.UUID, actor: str, note: str = "") -> bool:
    """Say that the bank has paid: the money is gone, the fee is the platform's. False if it is not under way."""
    with scope.platform("a reseller's own accounts"), transaction.atomic():
        sent = _end(withdrawal_id, State.PAID, note)
        if sent is not None:
            _move(
                sent,
                Transfer.Kind.WITHDRAWAL_PAID,
                actor,
                _of(sent, AccountKind.WITHDRAWAL_PAYABLE, -sent.amount),
                Movement(account=ledger.clearing_account(tenant_id=None, channel=PAYOUT), amount=sent.payout),
                Movement(account=ledger.platform_revenue(), amount=sent.fee),
            )
    log.info("withdrawal_paid", withdrawal=str(withdrawal_id), actor=actor, changed=sent is not None)
    _tell_reseller(withdrawal_id, changed=sent is not None)
    return sent is not None


def failed(*, withdrawal_id: uuid.UUID, reason: str, actor: str) -> bool:
    """Say that the bank has not paid, and return the amount, fee and all. False if it is not under way."""
    with scope.platform("a reseller's own accounts"), transaction.atomic():
        sent = _end(withdrawal_id, State.FAILED, reason)
        if sent is not None:
            _give_back(sent, actor)
    log.info("withdrawal_failed", withdrawal=str(withdrawal_id), actor=actor, changed=sent is not None)
    _tell_reseller(withdrawal_id, changed=sent is not None)
    return sent is not None


def _tell_reseller(withdrawal_id: uuid.UUID, *, changed: bool) -> None:
    """Tell the reseller what has become of a withdrawal, if anything has."""
    if not changed:
        return
    row = Withdrawal.objects.get(pk=withdrawal_id)
    with scope.platform("a notice to a reseller"):
        notices.tell(kind=Notice.Kind.WITHDRAWAL, reseller_id=row.reseller_id, write=partial(_became, row))


def _wanted(row: Withdrawal) -> Letter:
    about = {"name": row.reseller.name, "yuan": show_yuan(row.amount), "number": str(row.pk)}
    return Letter(
        gettext("%(name)s asks for a withdrawal of ¥%(yuan)s") % about,
        gettext("Withdrawal %(number)s waits for somebody to decide: “Withdrawals” in the operator's admin.") % about,
    )


def _became(row: Withdrawal) -> Letter:
    about = {
        "yuan": show_yuan(row.amount),
        "state": row.get_state_display(),
        "note": row.note or "–",
        "number": str(row.pk),
    }
    return Letter(
        gettext("Withdrawal of ¥%(yuan)s: %(state)s") % about,
        gettext("Withdrawal %(number)s of ¥%(yuan)s: %(state)s. Note: %(note)s") % about,
    )


def _details(**details: str) -> dict[str, str]:
    """Return who is to be paid where, each in one short line."""
    cleaned = {name: text.strip() for name, text in details.items()}
    if not all(text and len(text) <= _TEXT_LENGTH and text.isprintable() for text in cleaned.values()):
        raise ProductError(
            ErrorCode.INVALID,
            _("Payee, bank and account number are wanted, each in one short line."),
            type="payout_account_invalid",
        )
    return cleaned


def _require_minimum(amount: int, minimum: int) -> None:
    if amount < minimum:
        raise ProductError(
            ErrorCode.INVALID,
            _("The smallest withdrawal is ¥%(minimum)s.") % {"minimum": show_yuan(minimum)},
            type="withdrawal_below_minimum",
            minimum=str(minimum),
        )


def _require_available(reseller_id: int, amount: int) -> None:
    """Lock the reseller's free commission, and see that it covers the amount beside what is owed."""
    kinds = (AccountKind.RESELLER_AVAILABLE, AccountKind.RESELLER_RECEIVABLE)
    free, owed = (
        ledger.lock(account=ledger.reseller_account(reseller_id=reseller_id, kind=kind)).available for kind in kinds
    )
    available = max(free + owed, 0)
    if amount > available:
        raise ProductError(
            ErrorCode.INVALID,
            _("Only ¥%(available)s can be withdrawn now.") % {"available": show_yuan(available)},
            type="withdrawal_beyond_balance",
            available=str(available),
        )


def _checked(withdrawal_id: uuid.UUID, checker_id: int) -> Withdrawal:
    """Return a withdrawal that the checker may decide."""
    asked = Withdrawal.objects.get(pk=withdrawal_id)
    if asked.maker_id == checker_id:
        raise ProductError(
            ErrorCode.INVALID, _("Whoever asks does not decide: another person has to."), type="checker_is_maker"
        )
    if not StaffUser.objects.get(pk=checker_id).is_operator:
        raise ProductError(ErrorCode.INVALID, _("Only the operator's people decide this."), type="checker_not_operator")
    return asked


def _end(withdrawal_id: uuid.UUID, state: Withdrawal.State, note: str) -> Withdrawal | None:
    """End a withdrawal that was sent, and return it."""
    sent = Withdrawal.objects.filter(pk=withdrawal_id, state=State.SENT)
    if sent.update(state=state, ended_at=Now(), note=note[:_NOTE_LENGTH]) != 1:
        return None
    return Withdrawal.objects.get(pk=withdrawal_id)


def _of(row: Withdrawal, kind: AccountKind, amount: int) -> Movement:
    return Movement(account=ledger.reseller_account(reseller_id=row.reseller_id, kind=kind), amount=amount)


def _give_back(row: Withdrawal, actor: str) -> None:
    _move(
        row,
        Transfer.Kind.WITHDRAWAL_BACK,
        actor,
        _of(row, AccountKind.WITHDRAWAL_PAYABLE, -row.amount),
        _of(row, AccountKind.RESELLER_AVAILABLE, row.amount),
    )


def _move(row: Withdrawal, kind: Transfer.Kind, actor: str, *movements: Movement) -> None:
    ledger.move(tenant_id=None, kind=kind, ref=str(row.pk), reason=row.note, actor=actor, movements=movements)
