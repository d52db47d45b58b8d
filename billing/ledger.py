"""The ledger: the only code that changes a balance, posted or pending. Amounts are whole micro-yuan.

    credit_user           manual credit or gift: the one way money reaches a user, whatever brought it
    credit_tenant_wallet  a tenant's prepayment to the platform
    balances              what a user has
    lock_user_accounts, lock_in_order, reservation, planned_release, move    for other flows, within their transactions

**Lock order**, the same everywhere, so that no two transactions wait for each other: the hold, then the user's accounts
(gift before cash), then the user's counters (quota, plan, caps), and the tenant's rows last, since everybody in the
tenant waits for those: its caps' counters, clearing, refunds owed, wholesale wallet, shortfall, tenant's revenue,
resellers' commission of the day, platform's revenue; behind them a reseller's own rows, which several tenants share.
`move` sorts its movements so; a transaction of two transfers locks what both move beforehand (`lock_in_order`).
Nothing slow may follow a tenant's row: commit at once.

A balance changes by a conditional UPDATE whose row count is checked, never by saving an object. Where the count is
wrong, the whole transaction fails (LedgerError): a fault of ours, never a message for a person.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from django.db import transaction

from billing.models import Account, AccountKind, Transfer
from billing.models.account import BELOW_ZERO_KINDS, USER_KINDS
from tenants import scope
from tenants.table import Planned, Query, Statement, Table, carry_out, fetch

MAX_AMOUNT: Final = 10**15  # one billion yuan: more is a typing mistake

# Where an answer came to more than was held and more than there is, the rest stands here, for someone to look at.
RETAIL_SHORTFALL: Final = "retail"
WHOLESALE_SHORTFALL: Final = "wholesale"
# What users had spent of rewards that were taken back: below zero until their next rewards have made up for it.
REWARD_SHORTFALL: Final = "reward"

# What a forced refund could not take back of a user, since it was spent: the tenant bears it.
REFUND_SHORTFALL: Final = "refund"

# What a credit without a payment is for; but for "manual" it is the transfer's kind too.
Source = Literal["manual", "redeem", "sign_in", "invitation", "ad"]

# The clearing accounts of what a tenant sold for less than its worth, and of what it gave away.
DISCOUNT: Final = "discount"
GIFT: Final = "gift"

_LOCK_ORDER: Final = (
    AccountKind.USER_GIFT,
    AccountKind.USER_CASH,
    AccountKind.PSP_CLEARING,
    AccountKind.REFUND_PAYABLE,
    AccountKind.TENANT_WHOLESALE,
    AccountKind.SHORTFALL,
    AccountKind.TENANT_REVENUE,
    AccountKind.RESELLER_ACCRUED,
    AccountKind.PLATFORM_REVENUE,
    AccountKind.RESELLER_WALLET,
    AccountKind.RESELLER_PENDING,
    AccountKind.RESELLER_AVAILABLE,
    AccountKind.RESELLER_RECEIVABLE,
    AccountKind.WITHDRAWAL_PAYABLE,
)
_BELOW_ZERO: Final = [str(kind) for kind in BELOW_ZERO_KINDS]
_ACCOUNTS: Final = Table(Account)
# Every answer runs these, some several times. "user_gift" sorts after "user_cash": descending is the lock order.
_LOCK_USER: Final = _ACCOUNTS.select(
    "WHERE tenant_id = %(tenant)s AND user_id = %(user)s AND kind IN ('user_gift', 'user_cash') "
    "ORDER BY kind DESC FOR UPDATE"
)
_FIND: Final = _ACCOUNTS.select(
    "WHERE tenant_id = %(tenant)s AND user_id IS NULL AND kind = ANY(%(kinds)s) "
    "AND (reseller_id IS NULL OR reseller_id = ANY(%(resellers)s))"
)
# No index serves IS NOT DISTINCT FROM.
_FIND_PLATFORM_S: Final = _FIND.replace("tenant_id = %(tenant)s", "tenant_id IS NULL")
_RESERVE: Final = """
UPDATE billing_account SET pending = pending + %(amount)s
WHERE id = %(account)s AND tenant_id IS NOT DISTINCT FROM %(tenant)s AND posted >= pending + %(amount)s
"""
_APPLY: Final = """
UPDATE billing_account SET posted = posted + %(amount)s, pending = pending - %(release)s
WHERE id = %(account)s AND tenant_id IS NOT DISTINCT FROM %(tenant)s AND pending >= %(release)s
  AND (posted >= pending - %(release)s - %(amount)s
       OR kind = ANY(%(below_zero)s))
"""
_NEW_TRANSFER: Final = """
INSERT INTO billing_transfer (tenant_id, kind, ref, reason, actor)
VALUES (%(tenant)s, %(kind)s, %(ref)s, %(reason)s, %(actor)s)
"""
_BEGIN_TRANSFER: Final = _NEW_TRANSFER + "ON CONFLICT DO NOTHING RETURNING id, created_at"
_BEGUN: Final = "VALUES (%(transfer)s::bigint)"
# Behind the changes of balances, whose locks have an order that entries' foreign keys would not keep.
_WRITE_ENTRIES: Final = """
WITH begun (id) AS (VALUES (%(transfer)s::bigint))
INSERT INTO billing_entry (tenant_id, transfer_id, account_id, amount) SELECT %(tenant)s, begun.id, moved.*
FROM begun, unnest(%(accounts)s::bigint[], %(amounts)s::bigint[]) AS moved
"""
_WRITE_TRANSFER: Final = _WRITE_ENTRIES.replace(_BEGUN, _NEW_TRANSFER + "RETURNING id")


class LedgerError(RuntimeError):
    """The ledger was asked for something that it must not do: the caller's transaction has to fail.

    LedgerError
    └── RefConflictError   a reference was used again for another transfer
    """


class RefConflictError(LedgerError):
    """The same reference came with another amount or another account."""


class Balances(NamedTuple):
    """What a user has, micro-yuan; `pending` of it is frozen by open holds."""

    cash: int
    gift: int
    pending: int

    @property
    def available(self) -> int:
        """What can be spent now."""
        return self.cash + self.gift - self.pending


class UserAccounts(NamedTuple):
    """A user's two accounts, locked until the end of the transaction."""

    gift: Account
    cash: Account

    @property
    def available(self) -> int:
        """What can be spent now, micro-yuan."""
        return self.gift.available + self.cash.available


class TenantAccounts(NamedTuple):
    """The tenant's accounts that an answer moves money on."""

    wallet: Account
    revenue: Account
    platform_revenue: Account
    retail_shortfall: Account
    wholesale_shortfall: Account
    accrued: Mapping[int, Account]  # by reseller: only those that were asked for


@dataclass(frozen=True, kw_only=True)
class Movement:
    """What a transfer does to one account: adds `amount` (±) to it, and unfreezes `release`."""

    account: Account
    amount: int = 0
    release: int = 0


@dataclass(frozen=True, kw_only=True)
class Payment:
    """Money that a payment channel collected: `amount` stands on the clearing account of `channel`."""

    channel: str
    amount: int


def credit_user(  # noqa: PLR0913  who, what, and the things an auditor asks for
    *,
    tenant_id: int,
    user_id: int,
    amount: int,
    kind: Literal["cash", "gift"],
    ref: str,
    reason: str,
    actor: str,
    source: Source = "manual",
    payment: Payment | None = None,
) -> Transfer:
    """Credit a user: by hand, for a redeem code, as a reward, or for a `payment`.

    The same `ref` credits once, and returns the first transfer again. Where a payment is not the amount credited, the
    rest is the tenant's: its revenue, or a discount that it gives.

    Raises ValueError for an amount outside 1…10¹⁵ or an unknown kind, RefConflictError for a `ref` that was used for
    another user or amount.
    """
    require_amount(amount)
    if kind not in ("cash", "gift"):
        raise ValueError(f"unknown kind of credit: {kind!r}")
    with scope.tenant(tenant_id), transaction.atomic():
        accounts = lock_user_accounts(tenant_id=tenant_id, user_id=user_id)
        # Money stands against the channel that it came by, a gift against what was given away.
        to, transfer_kind, channel = (
            (accounts.gift, Transfer.Kind.GIFT, GIFT)
            if kind == "gift"
            else (accounts.cash, Transfer.Kind.CREDIT, source)
        )
        if source != "manual":
            transfer_kind = Transfer.Kind(source)
        if payment is None:
            payment = Payment(channel=channel, amount=amount)
        else:
            require_amount(payment.amount)
            transfer_kind = Transfer.Kind.TOPUP
        return move(
            tenant_id=tenant_id,
            kind=transfer_kind,
            ref=ref,
            reason=reason,
            actor=actor,
            movements=[
                *_collected(tenant_id=tenant_id, payment=payment, credited=amount),
                Movement(account=to, amount=amount),
            ],
        )


def _collected(*, tenant_id: int, payment: Payment, credited: int) -> list[Movement]:
    """Return where a credit comes from."""
    rest = payment.amount - credited
    movements = []
    if rest < 0:
        discount = clearing_account(tenant_id=tenant_id, channel=DISCOUNT)
        movements.append(Movement(account=discount, amount=rest))
    clearing = clearing_account(tenant_id=tenant_id, channel=payment.channel)
    movements.append(Movement(account=clearing, amount=-payment.amount))
    if rest > 0:
        movements.append(Movement(account=tenant_accounts(tenant_id=tenant_id).revenue, amount=rest))
    return movements


def credit_tenant_wallet(*, tenant_id: int, amount: int, ref: str, reason: str, actor: str) -> Transfer:
    """Top up a tenant's wholesale wallet by hand; otherwise as `credit_user`."""
    require_amount(amount)
    with scope.tenant(tenant_id), transaction.atomic():
        wallet = tenant_accounts(tenant_id=tenant_id).wallet
        clearing = clearing_account(tenant_id=tenant_id, channel="manual")
        return move(
            tenant_id=tenant_id,
            kind=Transfer.Kind.WALLET_TOPUP,
            ref=ref,
            reason=reason,
            actor=actor,
            movements=[Movement(account=clearing, amount=-amount), Movement(account=wallet, amount=amount)],
        )


def balances(*, tenant_id: int, user_id: int) -> Balances:
    """Return what a user has; zeros for one who never had anything."""
    with scope.tenant(tenant_id):
        found = {row.kind: row for row in Account.objects.filter(user_id=user_id, kind__in=USER_KINDS)}
    posted = {kind: row.posted for kind, row in found.items()}
    return Balances(
        cash=posted.get(AccountKind.USER_CASH, 0),
        gift=posted.get(AccountKind.USER_GIFT, 0),
        pending=sum(row.pending for row in found.values()),
    )


def lock_user_accounts(*, tenant_id: int, user_id: int) -> UserAccounts:
    """Lock a user's accounts, opening them where they are missing; what they say then stays so until the commit."""
    query = user_accounts_query(tenant_id=tenant_id, user_id=user_id)
    found = fetch(query)
    if found is None:
        _open(Account(tenant_id=tenant_id, user_id=user_id, kind=kind) for kind in USER_KINDS)
        found = fetch(query)
    if found is None:
        raise LedgerError(f"user {user_id} of tenant {tenant_id} has no accounts")
    return found


def user_accounts_query(*, tenant_id: int, user_id: int) -> Query[UserAccounts | None]:
    """Return the query that locks a user's accounts; it finds None where they are not open yet."""
    scope.require_owner(tenant_id)
    return Query(_LOCK_USER, {"tenant": tenant_id, "user": user_id}, _user_accounts)


def _user_accounts(rows: list[tuple[Any, ...]]) -> UserAccounts | None:
    return UserAccounts(*map(_ACCOUNTS.row, rows)) if len(rows) == len(USER_KINDS) else None


def tenant_accounts(*, tenant_id: int, resellers: Sequence[int] = ()) -> TenantAccounts:
    """Return the accounts of the tenant that answers move money on, opened if missing; also what `resellers` accrue.

    Not locked: read their ids, not their balances. All are opened in one statement, before any of them is locked, so
    that a tenant's first answers cannot wait for each other crosswise.
    """
    return _tenant_accounts(_rows(tenant_id, *_keys_of_tenant(resellers)), resellers)


def tenant_accounts_query(*, tenant_id: int, resellers: Sequence[int] = ()) -> Query[TenantAccounts | None]:
    """Return the query of the same; it finds None where some are not open yet."""
    keys = _keys_of_tenant(resellers)

    def read(rows: list[tuple[Any, ...]]) -> TenantAccounts | None:
        found = _by_key(rows)
        return _tenant_accounts([found[key] for key in keys], resellers) if all(key in found for key in keys) else None

    return Query(_FIND, _wanted(tenant_id, keys), read)


def wallet_query(*, tenant_id: int) -> Query[Account | None]:
    """Return the query of the tenant's wholesale wallet alone, not locked; it finds None where it is not open yet."""
    key = _Key(AccountKind.TENANT_WHOLESALE)
    return Query(_FIND, _wanted(tenant_id, [key]), _ACCOUNTS.first)


def _keys_of_tenant(resellers: Sequence[int]) -> list["_Key"]:
    return [
        _Key(AccountKind.TENANT_WHOLESALE),
        _Key(AccountKind.TENANT_REVENUE),
        _Key(AccountKind.PLATFORM_REVENUE),
        _Key(AccountKind.SHORTFALL, channel=RETAIL_SHORTFALL),
        _Key(AccountKind.SHORTFALL, channel=WHOLESALE_SHORTFALL),
        *(_Key(AccountKind.RESELLER_ACCRUED, reseller_id=reseller_id) for reseller_id in resellers),
    ]


def _tenant_accounts(accounts: Sequence[Account], resellers: Sequence[int]) -> TenantAccounts:
    wallet, revenue, platform_revenue, retail_shortfall, wholesale_shortfall, *accrued = accounts
    return TenantAccounts(
        wallet=wallet,
        revenue=revenue,
        platform_revenue=platform_revenue,
        retail_shortfall=retail_shortfall,
        wholesale_shortfall=wholesale_shortfall,
        accrued=dict(zip(resellers, accrued, strict=True)),
    )


def platform_revenue() -> Account:
    """Return the platform's revenue that is of no tenant, opened if missing, not locked; in the platform's scope."""
    return _rows(None, _Key(AccountKind.PLATFORM_REVENUE))[0]


def clearing_account(*, tenant_id: int | None, channel: str) -> Account:
    """Return the tenant's (or the platform's) clearing account of a payment channel, opened if missing, not locked."""
    return channel_account(tenant_id=tenant_id, kind=AccountKind.PSP_CLEARING, channel=channel)


def channel_account(*, tenant_id: int | None, kind: AccountKind, channel: str) -> Account:
    """Return the tenant's account of a kind that has channels (`CHANNEL_KINDS`), opened if missing, not locked."""
    return _rows(tenant_id, _Key(kind, channel=channel))[0]


def reseller_account(*, reseller_id: int, kind: AccountKind, tenant_id: int | None = None) -> Account:
    """Return a reseller's account, opened if missing, not locked; in the platform's scope.

    Only RESELLER_ACCRUED is of a tenant too, and is reached from that tenant's scope.
    """
    return _rows(tenant_id, _Key(kind, reseller_id=reseller_id))[0]


def lock(*, account: Account) -> Account:
    """Lock an account and read it again. A tenant's makes everybody in the tenant wait: move and commit at once."""
    return Account.objects.select_for_update().get(pk=account.pk)


def lock_in_order(*, accounts: Iterable[Account]) -> None:
    """Lock what several transfers of one transaction move, before the first of them: `move` sorts only its own."""
    for movement in _in_lock_order(Movement(account=account) for account in accounts):
        lock(account=movement.account)


def reservation(*, account: Account, amount: int) -> Statement:
    """Return the statement that freezes `amount` of what is available, and changes no row if that is less."""
    if amount < 0:
        raise ValueError("a negative amount cannot be frozen")
    scope.require_owner(account.tenant_id)
    return Statement(_RESERVE, {"account": account.pk, "tenant": account.tenant_id, "amount": amount})


def planned_release(*, movements: Iterable[Movement]) -> Planned:
    """Return the statements that unfreeze without moving money."""
    movements = list(movements)
    if any(movement.amount for movement in movements):
        raise ValueError("money moves by a transfer only")
    return _planned(movements)


def move(  # noqa: PLR0913  a transfer's columns
    *, tenant_id: int | None, kind: Transfer.Kind, ref: str, movements: Iterable[Movement], reason: str, actor: str
) -> Transfer:
    """Write a transfer with its entries and change the balances, all within the caller's transaction.

    Without a tenant it is the platform's own, which moves a reseller's accounts, in the platform's scope.

    A `ref` seen before moves nothing and returns its transfer, if that moved the same amounts (RefConflictError if
    not). Movements of zero leave no entry. Raises LedgerError where the sum is not zero or a balance would fall
    below what is frozen of it.
    """
    movements = _balanced(movements, tenant_id=tenant_id, ref=ref)
    amounts = _amounts(movements)
    transfer = Transfer(tenant_id=tenant_id, kind=kind, ref=ref, reason=reason, actor=actor)
    columns = {"tenant": tenant_id, "kind": kind, "ref": ref, "reason": reason, "actor": actor}
    begun = fetch(Query(_BEGIN_TRANSFER, columns, list))
    if not begun:
        return _moved_before(tenant_id, kind, ref, amounts)
    [(transfer.pk, transfer.created_at)] = begun
    carry_out(_planned(movements, _entries(_WRITE_ENTRIES, amounts, tenant=tenant_id, transfer=transfer.pk)))
    return transfer


def planned_move(  # noqa: PLR0913  a transfer's columns
    *, tenant_id: int | None, kind: Transfer.Kind, ref: str, movements: Iterable[Movement], reason: str, actor: str
) -> Planned:
    """Return the statements of a transfer whose `ref` nobody else can be using: the caller has locked what it names.

    Otherwise as `move`, but for a `ref` seen before, which the database refuses.
    """
    movements = _balanced(movements, tenant_id=tenant_id, ref=ref)
    columns = {"tenant": tenant_id, "kind": kind, "ref": ref, "reason": reason, "actor": actor}
    return _planned(movements, _entries(_WRITE_TRANSFER, _amounts(movements), **columns))


def _balanced(movements: Iterable[Movement], *, tenant_id: int | None, ref: str) -> list[Movement]:
    """Return the movements of a transfer; raise where they are none that may be made."""
    movements = list(movements)
    if sum(movement.amount for movement in movements) != 0:
        raise LedgerError("the movements of a transfer must sum to zero")
    if not ref:
        raise ValueError("a transfer needs a reference")
    scope.require_owner(tenant_id)
    return movements


def _amounts(movements: Iterable[Movement]) -> dict[int, int]:
    """Return what moves on each account; a movement of zero leaves no entry."""
    return {movement.account.pk: movement.amount for movement in movements if movement.amount}


def _moved_before(tenant_id: int | None, kind: Transfer.Kind, ref: str, amounts: Mapping[int, int]) -> Transfer:
    """Return the transfer that has the reference already, if it moved the same."""
    transfer = Transfer.objects.get(tenant=tenant_id, kind=kind, ref=ref)
    if dict(transfer.entries.values_list("account_id", "amount")) != amounts:
        raise RefConflictError(f"{kind} {ref!r} was used for another transfer")
    return transfer


def _entries(statement: str, amounts: Mapping[int, int], **columns: Any) -> Statement:
    """Return the statement that writes entries, of a transfer that is there or that it writes as well."""
    return Statement(statement, {**columns, "accounts": list(amounts), "amounts": list(amounts.values())})


def _planned(movements: Iterable[Movement], *more: Statement) -> Planned:
    """Return the statements that change balances in the lock order, then what is `more`; a change not made fails."""
    changes = [movement for movement in _in_lock_order(movements) if movement.amount or movement.release]

    def check(changed: Sequence[int]) -> None:
        for movement, rows in zip(changes, changed, strict=False):
            if rows != 1:
                account, amount, release = movement.account.pk, movement.amount, movement.release
                raise LedgerError(f"account {account} cannot take {amount} with {release} freed")

    return Planned([*map(_application, changes), *more], check)


def _application(movement: Movement) -> Statement:
    account = movement.account
    scope.require_owner(account.tenant_id)
    return Statement(
        _APPLY,
        {
            "account": account.pk,
            "tenant": account.tenant_id,
            "amount": movement.amount,
            "release": movement.release,
            "below_zero": _BELOW_ZERO,
        },
    )


def _in_lock_order(movements: Iterable[Movement]) -> list[Movement]:
    """Sort as the module's docstring says; users among themselves by id."""

    def place(movement: Movement) -> tuple[int, int, int, str]:
        account = movement.account
        rank = _LOCK_ORDER.index(AccountKind(account.kind))
        if account.user_id is not None:
            return 0, account.user_id, rank, ""
        return 1, rank, account.reseller_id or 0, account.channel

    return sorted(movements, key=place)


class _Key(NamedTuple):
    """What tells the accounts apart that are no user's."""

    kind: AccountKind
    channel: str = ""
    reseller_id: int | None = None


def _rows(tenant_id: int | None, *keys: _Key) -> list[Account]:
    """Return the tenant's, or the platform's, accounts in this order, opened where they are missing."""
    found = _find(tenant_id, keys)
    if not all(key in found for key in keys):
        _open(Account(tenant_id=tenant_id, **key._asdict()) for key in keys)
        found = _find(tenant_id, keys)
    return [found[key] for key in keys]


def _find(tenant_id: int | None, keys: Iterable[_Key]) -> dict[_Key, Account]:
    """Return those of the accounts that there are, and perhaps others of their kinds."""
    return fetch(Query(_FIND_PLATFORM_S if tenant_id is None else _FIND, _wanted(tenant_id, keys), _by_key))


def _wanted(tenant_id: int | None, keys: Iterable[_Key]) -> dict[str, Any]:
    scope.require_owner(tenant_id)
    resellers = [key.reseller_id for key in keys if key.reseller_id is not None]
    return {"tenant": tenant_id, "kinds": [str(key.kind) for key in keys], "resellers": resellers}


def _by_key(rows: list[tuple[Any, ...]]) -> dict[_Key, Account]:
    accounts = map(_ACCOUNTS.row, rows)
    return {_Key(AccountKind(account.kind), account.channel, account.reseller_id): account for account in accounts}


def _open(accounts: Iterable[Account]) -> None:
    """Insert accounts that another transaction may be inserting too."""
    Account.objects.bulk_create(accounts, ignore_conflicts=True)


def require_amount(amount: int) -> None:
    """Raise ValueError for an amount outside 1…10¹⁵ micro-yuan, or one that is no whole number."""
    if isinstance(amount, bool) or not isinstance(amount, int) or not 1 <= amount <= MAX_AMOUNT:
        raise ValueError(f"an amount is 1 to {MAX_AMOUNT} whole micro-yuan, not {amount!r}")
