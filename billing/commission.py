"""Resellers' commission, after the answers have accrued it: folded by day, frozen, set free, and taken back.

    fold_tenant           the same for one tenant at once, which changes hands
    fold_day              what tenants' answers accrued becomes a commission of the day, frozen
    release_matured       what was frozen long enough is the reseller's
    hold_back, let_go     the operator disputes a frozen commission, and no longer
    take_back             a refund gives back what was consumed: note, within it, what that takes from resellers
    post_backs            take it: of what accrued, then frozen, then free; the rest is owed and netted by later folds

All of it is idempotent: delivered three times, it happens once. `take_back` runs in the tenant's scope and writes that
tenant's rows only; everything else touches resellers' accounts, which are the platform's, in its scope.

Lock order: the row of this feature, then as in `billing.ledger`.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q, Sum
from django.db.models.functions import Coalesce, Now

from billing import ledger, pricing, quota
from billing.commission_terms import terms_of
from billing.ledger import Movement
from billing.models import (
    Account,
    AccountKind,
    Commission,
    CommissionBack,
    ConsumptionBack,
    Hold,
    Transfer,
)
from tenants import scope
from tenants.models import Reseller, Tenant

log = structlog.get_logger(__name__)

ACTOR: Final = "commission"
# Where a reseller's terms say nothing.
FREEZE_DAYS: Final = 7
_FROZEN: Final = (Commission.State.FROZEN, Commission.State.DISPUTED)
_PAGE: Final = 200
_REASON_LENGTH: Final = 200  # of the columns


def fold_day(*, day: date | None = None) -> int:
    """Fold what every tenant's answers accrued for resellers into a frozen commission each; return how many.

    A commission is of `day`, by default the last one that was over in the operator's time zone, by the database's
    clock. What accrues after the fold is the next day's.
    """
    folded = 0
    day = day or _last_day()
    with scope.platform("what every tenant's answers accrued for resellers"):
        due = Account.objects.filter(kind=AccountKind.RESELLER_ACCRUED, posted__gt=0).order_by("pk")
        for account_id in list(due.values_list("pk", flat=True)):
            try:
                folded += _fold(account_id, day)
            except ledger.LedgerError:
                log.exception("commission cannot be folded", account=account_id)
    return folded


def fold_tenant(*, tenant_id: int) -> dict[int, int]:
    """Fold what one tenant's answers have accrued until now, before it changes hands; within the caller's transaction.

    In the platform's scope. The commission is of today: what accrues later in the day is the next day's, as ever.
    Returns micro-yuan by reseller. What a day's fold has taken already today waits for the next one, and is not lost.
    """
    today = quota.quota_day(now=pricing.now(), zone=settings.TIME_ZONE).date
    due = Account.objects.filter(kind=AccountKind.RESELLER_ACCRUED, tenant_id=tenant_id, posted__gt=0).order_by("pk")
    found = {account.pk: (account.reseller_id or 0, account.available) for account in due}
    return {reseller: amount for pk, (reseller, amount) in found.items() if _fold(pk, today)}


def release_matured() -> int:
    """Set free what was frozen until now, of every reseller; return how many commissions. Several may run at once."""
    released = 0
    with scope.platform("frozen commissions of every tenant"):
        due = Commission.objects.filter(state=Commission.State.FROZEN, release_at__lte=Now()).order_by("release_at")
        for commission_id in list(due.values_list("pk", flat=True)):
            try:
                released += _release(commission_id)
            except ledger.LedgerError:
                log.exception("commission cannot be set free", commission=commission_id)
    return released


def hold_back(*, commission_id: int, reason: str, actor: str) -> bool:
    """Keep a frozen commission from being set free; False if it is not frozen any more, or held back already."""
    if not reason.strip():
        raise ValueError("a dispute needs a reason")
    with scope.platform("the operator disputes a commission"):
        frozen = Commission.objects.filter(pk=commission_id, state=Commission.State.FROZEN)
        changed = frozen.update(
            state=Commission.State.DISPUTED, disputed_by=actor, dispute=reason.strip()[:_REASON_LENGTH]
        )
    return changed == 1


def let_go(*, commission_id: int, actor: str) -> bool:
    """End a dispute; the next sweep sets free what is past its day. False if the commission is not held back."""
    with scope.platform("the operator ends a dispute"):
        disputed = Commission.objects.filter(pk=commission_id, state=Commission.State.DISPUTED)
        changed = disputed.update(state=Commission.State.FROZEN, disputed_by="", dispute="")
    log.info("commission_let_go", commission=commission_id, actor=actor, changed=changed)
    return changed == 1


def take_back(  # noqa: PLR0913  whose, how much, and the things an auditor asks for
    *, tenant_id: int, user_id: int, spent: int, ref: str, reason: str, actor: str
) -> int:
    """Note what resellers give back of the user's last answers that came to `spent` micro-yuan; return it, micro-yuan.

    Part of a refund's transaction, and its last step with money: the user's rows are locked. `ref` names the refund,
    and notes once. Walks the user's newest posted answers; of each goes back the part of the shares that the part
    given back has in what the user paid for it, rounded down, and over all refunds never more than the whole.
    Posted by `post_backs` soon after the commit. Raises ValueError for a negative `spent` or an empty `ref`.
    """
    if spent < 0 or not ref:
        raise ValueError("what was spent is at least 0, and a refund has a reference")
    with scope.tenant(tenant_id), transaction.atomic():
        ledger.lock_user_accounts(tenant_id=tenant_id, user_id=user_id)
        noted = CommissionBack.objects.filter(ref=ref)
        if not ConsumptionBack.objects.filter(ref=ref).exists():
            _note(tenant_id=tenant_id, user_id=user_id, spent=spent, ref=ref, reason=reason, actor=actor)
        return int(noted.aggregate(total=Coalesce(Sum("amount"), 0))["total"])


def post_backs() -> int:
    """Take from resellers what refunds have noted, of every tenant; return how many notes. Several may run at once."""
    posted = 0
    with scope.platform("commissions to take back, of every tenant"):
        due = CommissionBack.objects.filter(posted_at=None).order_by("pk")
        for back_id in list(due.values_list("pk", flat=True)):
            try:
                posted += _post_back(back_id)
            except ledger.LedgerError:
                log.exception("commission cannot be taken back", back=back_id)
    return posted


class _Parts(NamedTuple):
    """Where what is taken back comes from, micro-yuan."""

    accrued: int
    frozen: int
    free: int
    owed: int


def _last_day() -> date:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        now: datetime = cursor.fetchone()[0]
    return quota.quota_day(now=now, zone=settings.TIME_ZONE).date - timedelta(days=1)


@transaction.atomic
def _fold(account_id: int, day: date) -> bool:
    """Fold one account; False if its day was folded before. The locked account lets one do it at a time."""
    accrued = Account.objects.select_for_update().get(pk=account_id)
    reseller_id, amount = accrued.reseller_id, accrued.available
    if accrued.tenant_id is None or reseller_id is None:
        raise ledger.LedgerError(f"account {account_id} accrues for nobody")
    if amount <= 0 or Commission.objects.filter(tenant=accrued.tenant_id, reseller=reseller_id, day=day).exists():
        return False
    pending = ledger.lock(account=_account(reseller_id, AccountKind.RESELLER_PENDING))
    receivable = ledger.lock(account=_account(reseller_id, AccountKind.RESELLER_RECEIVABLE))
    netted = min(amount, max(-receivable.posted, 0))
    terms = terms_of(reseller_id=reseller_id)
    freeze_days = terms.freeze_days if terms else FREEZE_DAYS
    Commission.objects.create(
        tenant_id=accrued.tenant_id,
        reseller_id=reseller_id,
        day=day,
        level=_level(accrued.tenant_id, reseller_id),
        amount=amount,
        netted=netted,
        release_at=Now() + timedelta(days=freeze_days),
    )
    ledger.move(
        tenant_id=accrued.tenant_id,
        kind=Transfer.Kind.COMMISSION,
        ref=f"{reseller_id}:{day}",
        reason="",
        actor=ACTOR,
        movements=[
            Movement(account=accrued, amount=-amount),
            Movement(account=pending, amount=amount - netted),
            Movement(account=receivable, amount=netted),
        ],
    )
    return True


def _account(reseller_id: int, kind: AccountKind) -> Account:
    return ledger.reseller_account(reseller_id=reseller_id, kind=kind)


def _level(tenant_id: int, reseller_id: int) -> Commission.Level:
    """Say how the reseller is, or was when it earned, related to the tenant."""
    own, parent = Tenant.objects.values_list("reseller_id", "reseller__parent_id").get(pk=tenant_id)
    if own == reseller_id:
        return Commission.Level.OWN
    if parent == reseller_id:
        return Commission.Level.CHILD
    if Reseller.objects.filter(pk=reseller_id, depth=2).exists():
        return Commission.Level.OWN
    # The tenant, or its reseller, has moved: the last answer that earned the reseller something knows.
    shared = Q(reseller=reseller_id, own_share__gt=0) | Q(parent_reseller=reseller_id, parent_share__gt=0)
    last = Hold.objects.filter(shared, tenant_id=tenant_id).order_by("-created_at").first()
    return Commission.Level.CHILD if last and last.parent_reseller_id == reseller_id else Commission.Level.OWN


@transaction.atomic
def _release(commission_id: int) -> bool:
    due = Commission.objects.filter(pk=commission_id, state=Commission.State.FROZEN, release_at__lte=Now())
    commission = due.select_for_update(skip_locked=True).first()
    if commission is None:
        return False
    if due.update(state=Commission.State.RELEASED, released_at=Now()) != 1:
        raise ledger.LedgerError(f"commission {commission_id} changed while it was locked")
    if commission.frozen:
        ledger.move(
            tenant_id=None,
            kind=Transfer.Kind.COMMISSION_RELEASE,
            ref=str(commission.pk),
            reason="",
            actor=ACTOR,
            movements=[
                Movement(
                    account=_account(commission.reseller_id, AccountKind.RESELLER_PENDING), amount=-commission.frozen
                ),
                Movement(
                    account=_account(commission.reseller_id, AccountKind.RESELLER_AVAILABLE), amount=commission.frozen
                ),
            ],
        )
    return True


def _note(*, tenant_id: int, user_id: int, spent: int, ref: str, reason: str, actor: str) -> None:  # noqa: PLR0913
    """Write which answers are given back, then what each reseller loses by it."""
    rows, lost = [], dict[int, int]()
    for hold, part in _newest(user_id=user_id, spent=spent):
        row = _given_back(hold, part, ref)
        rows.append(row)
        for reseller_id, amount in ((hold.reseller_id, row.own_back), (hold.parent_reseller_id, row.parent_back)):
            if reseller_id is not None and amount:
                lost[reseller_id] = lost.get(reseller_id, 0) + amount
    ConsumptionBack.objects.bulk_create(rows)
    CommissionBack.objects.bulk_create(
        CommissionBack(
            tenant_id=tenant_id,
            reseller_id=reseller_id,
            ref=ref,
            amount=amount,
            reason=reason[:_REASON_LENGTH],
            actor=actor,
        )
        for reseller_id, amount in sorted(lost.items())
    )


class _Given(NamedTuple):
    """What earlier refunds gave back of a hold, and what this one does, micro-yuan."""

    before: int
    now: int
    own_before: int
    parent_before: int


def _newest(*, user_id: int, spent: int) -> Iterable[tuple[Hold, _Given]]:
    """Yield the user's newest answers that they paid for, and what to give back of each, until `spent` is reached."""
    paid = Hold.objects.filter(user_id=user_id, state=Hold.State.POSTED).filter(
        Q(gift_charge__gt=0) | Q(cash_charge__gt=0)
    )
    known = paid.annotate(
        before=Coalesce(Sum("given_back__spent"), 0),
        own_before=Coalesce(Sum("given_back__own_back"), 0),
        parent_before=Coalesce(Sum("given_back__parent_back"), 0),
    )
    seen = 0
    while spent and (page := list(known.order_by("-created_at", "-pk")[seen : seen + _PAGE])):
        seen += len(page)
        for hold in page:
            now = min(spent, hold.gift_charge + hold.cash_charge - hold.before)
            if now:
                spent -= now
                yield hold, _Given(hold.before, now, hold.own_before, hold.parent_before)


def _given_back(hold: Hold, part: _Given, ref: str) -> ConsumptionBack:
    """Reckon from the whole that is given back of a hold by now, so that nothing is lost to rounding twice."""
    paid, total = hold.gift_charge + hold.cash_charge, part.before + part.now
    return ConsumptionBack(
        tenant_id=hold.tenant_id,
        hold=hold,
        ref=ref,
        spent=part.now,
        own_back=hold.own_share * total // paid - part.own_before,
        parent_back=hold.parent_share * total // paid - part.parent_before,
    )


@transaction.atomic
def _post_back(back_id: int) -> bool:
    """Post one note; False if another process has it, or had."""
    due = CommissionBack.objects.filter(pk=back_id, posted_at=None)
    back = due.select_for_update(skip_locked=True).first()
    if back is None:
        return False
    of_reseller = Commission.objects.filter(reseller_id=back.reseller_id, state__in=_FROZEN)
    frozen = list(of_reseller.select_for_update().order_by("pk"))
    accrued = ledger.lock(
        account=ledger.reseller_account(
            reseller_id=back.reseller_id, kind=AccountKind.RESELLER_ACCRUED, tenant_id=back.tenant_id
        )
    )
    revenue = ledger.lock(account=ledger.tenant_accounts(tenant_id=back.tenant_id).platform_revenue)
    pending = ledger.lock(account=_account(back.reseller_id, AccountKind.RESELLER_PENDING))
    available = ledger.lock(account=_account(back.reseller_id, AccountKind.RESELLER_AVAILABLE))
    parts = _split(
        back.amount, accrued=accrued.available, frozen=sum(row.frozen for row in frozen), free=available.available
    )
    _take_frozen(frozen, parts.frozen, tenant_id=back.tenant_id)
    ledger.move(
        tenant_id=back.tenant_id,
        kind=Transfer.Kind.COMMISSION_BACK,
        ref=str(back.pk),
        reason=back.reason,
        actor=back.actor,
        movements=[
            Movement(account=accrued, amount=-parts.accrued),
            Movement(account=revenue, amount=back.amount),
            Movement(account=pending, amount=-parts.frozen),
            Movement(account=available, amount=-parts.free),
            Movement(account=_account(back.reseller_id, AccountKind.RESELLER_RECEIVABLE), amount=-parts.owed),
        ],
    )
    if due.update(posted_at=Now()) != 1:
        raise ledger.LedgerError(f"commission to take back {back_id} changed while it was locked")
    return True


def _split(amount: int, *, accrued: int, frozen: int, free: int) -> _Parts:
    """Take what accrued first, then what is frozen, then what is free; the rest will be owed."""
    of_accrued = min(amount, accrued)
    of_frozen = min(amount - of_accrued, frozen)
    of_free = min(amount - of_accrued - of_frozen, free)
    return _Parts(of_accrued, of_frozen, of_free, amount - of_accrued - of_frozen - of_free)


def _take_frozen(frozen: Iterable[Commission], amount: int, *, tenant_id: int) -> None:
    """Take from locked commissions: the same tenant's first, the newest first."""
    for row in sorted(frozen, key=lambda row: (row.tenant_id == tenant_id, row.day, row.pk), reverse=True):
        part = min(amount, row.frozen)
        if part:
            Commission.objects.filter(pk=row.pk).update(taken_back=F("taken_back") + part)
            amount -= part
