"""The prepaid wholesale wallets: how tenants' and resellers' are filled, and who is told when one runs low.

    credit_reseller_wallet    the operator tops up a reseller's wallet
    allot                     a reseller fills the wallet of a tenant of its own, or of its children's, from its own
    request_topup             a tenant or reseller says to have sent money
    confirm_topup, reject_topup    the operator has found it, or not
    set_threshold             below which balance a wallet's people are told
    notify_low_wallets        tell them, once for each crossing

A tenant's wallet is topped up by `ledger.credit_tenant_wallet`. A wallet is named by `tenant_id` or `reseller_id`.
"""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

import structlog
from django.db import IntegrityError, transaction
from django.db.models import F, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce, Now
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from billing import ledger, notices
from billing.ledger import Movement
from billing.models import Account, AccountKind, Transfer, WalletNotice, WalletTopUp
from billing.yuan import show_yuan
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.letters import Letter
from tenants.models import Notice, StaffUser, Tenant

log = structlog.get_logger(__name__)

_NOTE_LENGTH: Final = 200  # of the column
_REFERENCE_LENGTH: Final = 80  # of the column
State = WalletTopUp.State


def credit_reseller_wallet(*, reseller_id: int, amount: int, ref: str, reason: str, actor: str) -> Transfer:
    """Top up a reseller's wholesale wallet by hand; otherwise as `ledger.credit_tenant_wallet`."""
    ledger.require_amount(amount)
    with scope.platform("a reseller's own wallet"), transaction.atomic():
        wallet = ledger.reseller_account(reseller_id=reseller_id, kind=AccountKind.RESELLER_WALLET)
        clearing = ledger.clearing_account(tenant_id=None, channel="manual")
        return ledger.move(
            tenant_id=None,
            kind=Transfer.Kind.WALLET_TOPUP,
            ref=ref,
            reason=reason,
            actor=actor,
            movements=[Movement(account=clearing, amount=-amount), Movement(account=wallet, amount=amount)],
        )


def allot(  # noqa: PLR0913  from whom to whom, and the things an auditor asks for
    *, reseller_id: int, tenant_id: int, amount: int, ref: str, reason: str, actor: str
) -> Transfer:
    """Move `amount` micro-yuan from a reseller's wallet to a tenant's; the same `ref` moves once for the tenant.

    Raises ValueError for an amount outside 1…10¹⁵; ProductError NOT_FOUND "tenant_not_found" for a tenant that is
    neither the reseller's nor a child's of it, RECHARGE "reseller_wallet_short" where the wallet has less.
    """
    ledger.require_amount(amount)
    with scope.platform("a reseller fills its tenant's wallet"), transaction.atomic():
        theirs = Q(reseller_id=reseller_id) | Q(reseller__parent_id=reseller_id)
        if not Tenant.objects.filter(theirs, pk=tenant_id).exists():
            raise ProductError(ErrorCode.NOT_FOUND, _("There is no such tenant here."), type="tenant_not_found")
        to = ledger.tenant_accounts(tenant_id=tenant_id).wallet
        wallet = ledger.reseller_account(reseller_id=reseller_id, kind=AccountKind.RESELLER_WALLET)
        ledger.lock(account=to)
        available = ledger.lock(account=wallet).available
        done = Transfer.objects.filter(tenant_id=tenant_id, kind=Transfer.Kind.WALLET_ALLOT, ref=ref).exists()
        if available < amount and not done:
            raise _wallet_short(available, amount)
        return ledger.move(
            tenant_id=tenant_id,
            kind=Transfer.Kind.WALLET_ALLOT,
            ref=ref,
            reason=reason,
            actor=actor,
            movements=[Movement(account=to, amount=amount), Movement(account=wallet, amount=-amount)],
        )


def request_topup(
    *,
    tenant_id: int | None = None,
    reseller_id: int | None = None,
    amount: int,
    bank_reference: str,
    requested_by_id: int,
) -> WalletTopUp:
    """Say that `amount` micro-yuan were sent to the operator by bank, for a wallet.

    Raises ValueError for an amount outside 1…10¹⁵, ProductError INVALID "bank_reference_invalid".
    """
    ledger.require_amount(amount)
    bank_reference = " ".join(bank_reference.split())
    if not bank_reference or len(bank_reference) > _REFERENCE_LENGTH or not bank_reference.isprintable():
        raise ProductError(
            ErrorCode.INVALID,
            _("The bank transfer's reference is wanted, at most 80 characters."),
            type="bank_reference_invalid",
        )
    with _owner(tenant_id, reseller_id):
        asked = WalletTopUp.objects.create(
            tenant_id=tenant_id,
            reseller_id=reseller_id,
            amount=amount,
            bank_reference=bank_reference,
            requested_by_id=requested_by_id,
        )
    log.info("wallet_topup_requested", topup=asked.pk, staff=requested_by_id)
    return asked


def confirm_topup(*, topup_id: int, decided_by_id: int, note: str = "") -> bool:
    """Fill the wallet: the money was found at the bank. False if the request was decided before.

    Raises ProductError INVALID "checker_is_maker", "checker_not_operator", and "bank_reference_used" where the same
    bank transfer has filled a wallet already.
    """
    with scope.platform("the operator decides a wallet's top-up"), transaction.atomic():
        asked = _decided(topup_id, State.CONFIRMED, decided_by_id, note)
        if asked is None:
            return False
        actor = StaffUser.objects.get(pk=decided_by_id).username
        ref, reason = f"request:{asked.pk}", asked.bank_reference
        if asked.tenant_id is not None:
            ledger.credit_tenant_wallet(
                tenant_id=asked.tenant_id, amount=asked.amount, ref=ref, reason=reason, actor=actor
            )
        elif asked.reseller_id is not None:
            credit_reseller_wallet(
                reseller_id=asked.reseller_id, amount=asked.amount, ref=ref, reason=reason, actor=actor
            )
    log.info("wallet_topup_confirmed", topup=topup_id, staff=decided_by_id)
    return True


def reject_topup(*, topup_id: int, decided_by_id: int, note: str) -> bool:
    """Refuse a request: no such money has come. False if it was decided before; raises as `confirm_topup`."""
    with scope.platform("the operator decides a wallet's top-up"), transaction.atomic():
        asked = _decided(topup_id, State.REJECTED, decided_by_id, note)
    log.info("wallet_topup_rejected", topup=topup_id, staff=decided_by_id, changed=asked is not None)
    return asked is not None


def set_threshold(*, tenant_id: int | None = None, reseller_id: int | None = None, threshold: int) -> WalletNotice:
    """Tell the wallet's people once its balance is below `threshold` micro-yuan; another threshold is judged anew."""
    ledger.require_amount(threshold)
    with _owner(tenant_id, reseller_id), transaction.atomic():
        notice, made = WalletNotice.objects.get_or_create(
            tenant_id=tenant_id,  # type: ignore[misc]  # None: Django looks for IS NULL, and inserts it
            reseller_id=reseller_id,
            defaults={"threshold": threshold},
        )
        if not made:
            WalletNotice.objects.filter(pk=notice.pk).exclude(threshold=threshold).update(
                threshold=threshold, notified_at=None
            )
            notice.refresh_from_db()
    return notice


def balance_of(*, tenant_id: int | None = None, reseller_id: int | None = None) -> int:
    """Return what a wallet has for new answers or allotments, micro-yuan; 0 for one that was never filled."""
    with _owner(tenant_id, reseller_id):
        wallet = Account.objects.filter(_wallet_of(tenant_id, reseller_id)).first()
    return wallet.available if wallet else 0


def with_balance(rows: QuerySet[WalletNotice]) -> QuerySet[Any]:
    """Add to each notice the `balance` of its wallet, micro-yuan, as the scope shows it."""
    available = F("posted") - F("pending")
    of_tenant = Account.objects.filter(kind=AccountKind.TENANT_WHOLESALE, tenant=OuterRef("tenant"))
    of_reseller = Account.objects.filter(kind=AccountKind.RESELLER_WALLET, reseller=OuterRef("reseller"), tenant=None)
    return rows.annotate(
        balance=Coalesce(
            Subquery(of_tenant.values(left=available)[:1]), Subquery(of_reseller.values(left=available)[:1]), Value(0)
        )
    )


def notify_low_wallets() -> int:
    """Mail the people of each wallet that fell below its threshold, once until it is filled; return how many wallets.

    That it was told is committed before the mails go out, and taken back where the mail server takes none: the next
    sweep tries again. One that takes some of them is not asked for more, or those would be told at each sweep.
    """
    told = 0
    with scope.platform("every tenant's and reseller's wallet"):
        rows = with_balance(WalletNotice.objects.all())
        WalletNotice.objects.filter(
            pk__in=rows.filter(notified_at__isnull=False, balance__gte=F("threshold")).values("pk")
        ).update(notified_at=None)
        for notice in rows.filter(notified_at=None, balance__lt=F("threshold")).select_related("tenant", "reseller"):
            told += _tell(notice, notice.balance)
    return told


def _wallet_short(available: int, needed: int) -> ProductError:
    return ProductError(
        ErrorCode.RECHARGE,
        _("Your wallet does not cover this. Please top it up."),
        type="reseller_wallet_short",
        scope="reseller",
        action="recharge",
        reset_at=None,
        used=None,
        limit=None,
        balance=str(available),
        needed=str(needed),
    )


def _owner(tenant_id: int | None, reseller_id: int | None) -> AbstractContextManager[None]:
    """Return the scope of a wallet's rows."""
    if (tenant_id is None) == (reseller_id is None):
        raise ValueError("a wallet is a tenant's or a reseller's")
    return scope.platform("a reseller's own wallet") if tenant_id is None else scope.tenant(tenant_id)


def _wallet_of(tenant_id: int | None, reseller_id: int | None) -> Q:
    if tenant_id is None:
        return Q(tenant=None, kind=AccountKind.RESELLER_WALLET, reseller=reseller_id)
    return Q(tenant_id=tenant_id, kind=AccountKind.TENANT_WHOLESALE)


def _decided(topup_id: int, state: WalletTopUp.State, decided_by_id: int, note: str) -> WalletTopUp | None:
    """Decide a request; None if it was decided before."""
    asked = WalletTopUp.objects.get(pk=topup_id)
    if asked.requested_by_id == decided_by_id:
        raise ProductError(
            ErrorCode.INVALID, _("Whoever asks does not decide: another person has to."), type="checker_is_maker"
        )
    if not StaffUser.objects.get(pk=decided_by_id).is_operator:
        raise ProductError(ErrorCode.INVALID, _("Only the operator's people decide this."), type="checker_not_operator")
    open_one = WalletTopUp.objects.filter(pk=topup_id, state=State.REQUESTED)
    decided = {"decided_by_id": decided_by_id, "decided_at": Now(), "note": note[:_NOTE_LENGTH]}
    try:
        with transaction.atomic():
            changed = open_one.update(state=state, **decided)
    except IntegrityError:
        raise ProductError(
            ErrorCode.INVALID,
            _("This bank transfer has filled a wallet already."),
            type="bank_reference_used",
        ) from None
    return asked if changed == 1 else None


def _tell(notice: WalletNotice, balance: int) -> bool:
    """Mail everybody whose business a wallet is; False if another sweep does, or the mail server takes none."""
    armed = WalletNotice.objects.filter(pk=notice.pk)
    if armed.filter(notified_at=None).update(notified_at=Now()) != 1:
        return False
    name = notice.tenant.name if notice.tenant else notice.reseller.name if notice.reseller else ""
    people = _people(notice)
    if not people:
        log.warning("low wallet, nobody to tell", notice=notice.pk, balance=balance)
    told = notices.tell(
        kind=Notice.Kind.LOW_BALANCE,
        tenant=notice.tenant,
        reseller_id=notice.reseller_id,
        write=partial(_runs_low, name=name, balance=balance, threshold=notice.threshold),
    )
    if people and not told:
        armed.update(notified_at=None)
        return False
    log.info("low_wallet_told", notice=notice.pk, balance=balance, people=told)
    return True


def _people(notice: WalletNotice) -> list[StaffUser]:
    """Return the owners and finance of the tenant, or the reseller's people, who have an address."""
    if notice.tenant_id is not None:
        return notices.treasurers(tenant_id=notice.tenant_id)
    return notices.people_of(reseller_id=notice.reseller_id or 0)


def _runs_low(*, name: str, balance: int, threshold: int) -> Letter:
    return Letter(
        gettext("The wholesale wallet of %(name)s runs low") % {"name": name},
        gettext(
            "%(name)s has ¥%(balance)s left in its wholesale wallet, less than ¥%(threshold)s.\n"
            "Without credit its answers stop. Please top it up."
        )
        % {"name": name, "balance": show_yuan(balance), "threshold": show_yuan(threshold)},
    )
