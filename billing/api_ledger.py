"""The JSON API of a user's own ledger: every movement of the two balances, and what each then was."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

from django.db.models import F, QuerySet, Sum, Window
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from ninja import Router, Schema
from pydantic import Field

from billing.models import AccountKind, Entry, Transfer
from billing.yuan import show_yuan
from tenants.api import Envelope, Month, Span, ok, signed_in, span_of, user_of
from tenants.models import EndUser
from tenants.sheets import csv_answer, csv_response

router = Router(tags=["billing"], auth=signed_in)

Account = Literal["cash", "gift"]
_KINDS: dict[Account, AccountKind] = {"cash": AccountKind.USER_CASH, "gift": AccountKind.USER_GIFT}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class EntryOut(Schema):
    """One movement, micro-yuan: more (+) or less (-) of a balance, and what that balance was after it.

    `kind` is a stable word, `title` the same for the person. `message_id` is that of the answer which was charged.
    """

    id: int
    at: datetime
    account: Account
    kind: str
    title: str
    detail: str
    amount: str
    balance: str
    message_id: str | None


@router.get("/ledger", response=Envelope[list[EntryOut]])
def ledger(
    request: HttpRequest,
    before: int | None = None,
    account: Account | None = None,
    limit: Annotated[int, Field(ge=1, le=100)] = 50,
) -> Any:
    """Return the user's movements, the latest first; `before` is the last one's `id`, for the next page."""
    balance = Window(Sum("amount"), partition_by=F("account_id"), order_by=F("pk").asc())
    rows = _mine(user_of(request)).annotate(balance=balance).order_by("-pk")
    if account is not None:
        rows = rows.filter(account__kind=_KINDS[account])
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return ok([_shown(row) for row in rows[:limit]])


@router.get("/ledger/export", openapi_extra=csv_answer())
def export(request: HttpRequest, month: Month = None) -> Any:
    """Return a month's movements as a CSV file, the oldest first; the present month where none is named."""
    span = span_of(request, month)
    mine = _mine(user_of(request))
    before = mine.filter(transfer__created_at__lt=span.began).values_list("account_id").annotate(Sum("amount"))
    rows = mine.filter(transfer__created_at__gte=span.began, transfer__created_at__lt=span.ended).order_by("pk")
    return csv_response(
        name=f"ledger-{span.name}",
        head=(_("time"), _("balance"), _("kind"), _("detail"), _("yuan"), _("balance after, yuan")),
        rows=[_line(row, span) for row in _added_up(rows, dict(before.order_by()))],
    )


def _added_up(rows: Iterable[Entry], balances: dict[int, int]) -> Iterator[Entry]:
    """Give each movement, the oldest first, the balance after it; `balances` are those before the first."""
    for row in rows:
        row.balance = balances[row.account_id] = balances.get(row.account_id, 0) + row.amount  # type: ignore[attr-defined]
        yield row


def _line(row: Entry, span: Span) -> tuple[str, ...]:
    told = _shown(row)
    return (
        timezone.localtime(told["at"], span.zone).isoformat(timespec="seconds"),
        _("gift balance") if told["account"] == "gift" else _("balance"),
        told["title"],
        told["message_id"] or told["detail"],
        show_yuan(int(told["amount"])),
        show_yuan(int(told["balance"])),
    )


def _mine(user: EndUser) -> QuerySet[Entry]:
    return Entry.objects.select_related("transfer", "account").filter(
        account__user=user, account__kind__in=_NAMES.keys()
    )


def _shown(row: Any) -> dict[str, Any]:
    """Return a movement as its owner sees it: of the reasons that staff typed, none."""
    kind = Transfer.Kind(row.transfer.kind)
    return {
        "id": row.pk,
        "at": row.transfer.created_at,
        "account": _NAMES[AccountKind(row.account.kind)],
        "kind": str(kind),
        "title": str(kind.label),
        "detail": row.transfer.reason if kind == Transfer.Kind.TOPUP else "",
        "amount": str(row.amount),
        "balance": str(row.balance),
        "message_id": row.transfer.ref if kind in {Transfer.Kind.ANSWER, Transfer.Kind.ADJUSTMENT} else None,
    }
