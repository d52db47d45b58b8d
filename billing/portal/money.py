"""What the reseller has and gets: the wholesale wallet, commissions, withdrawals."""

from typing import Any

from django import forms
from django.contrib import messages
from django.db import IntegrityError, transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from uuid_utils.compat import uuid7

from billing import commission_terms, wallet, withdrawal
from billing.models import Commission, Withdrawal
from billing.models.resale import MIN_WITHDRAWAL
from billing.portal import charts, figures, lists, own
from billing.portal.forms import yuan
from billing.portal.home import money_tiles
from billing.portal.lists import Column
from billing.yuan import show_money, show_yuan
from tenants import throttle
from tenants.errors import ProductError
from tenants.portal.access import PortalRequest, reseller_required, tenants_of
from tenants.portal.history import record

_SHOWN = ("GET", "HEAD", "POST")
_MARKS = {
    "requested": "wait",
    "approved": "wait",
    "sent": "wait",
    "paid": "good",
    "failed": "bad",
    "rejected": "bad",
    "confirmed": "good",
    "frozen": "wait",
    "disputed": "bad",
    "released": "good",
}


def _state() -> Column:
    return Column(
        label=gettext_lazy("state"),
        show=lambda row: row.get_state_display(),
        mark=lambda row: _MARKS.get(row.state, "off"),
    )


MOVES = (
    lists.moment(gettext_lazy("when"), lambda row: row.created_at),
    Column(label=gettext_lazy("what"), show=lambda row: row.get_kind_display()),
    Column(label=gettext_lazy("tenant"), show=lambda row: row.tenant.name if row.tenant else ""),
    Column(label=gettext_lazy("reason"), show=lambda row: row.reason),
    lists.money(gettext_lazy("amount"), lambda row: row.amount),
)
TOP_UPS = (
    lists.moment(gettext_lazy("asked for"), lambda row: row.created_at),
    lists.money(gettext_lazy("amount"), lambda row: row.amount),
    Column(label=gettext_lazy("reference of the bank transfer"), show=lambda row: row.bank_reference),
    _state(),
    Column(label=gettext_lazy("note"), show=lambda row: row.note),
    Column(label=gettext_lazy("by"), show=lambda row: row.requested_by.username),
)


class TopUpForm(forms.Form):
    """Takes what was sent to the operator's bank account."""

    amount = yuan(gettext_lazy("yuan that were sent"))
    bank_reference = forms.CharField(
        label=gettext_lazy("reference of the bank transfer"),
        max_length=80,
        help_text=gettext_lazy("As the bank prints it, with the day, so that nobody else's looks the same."),
    )


class NoticeForm(forms.Form):
    """Takes below which balance the reseller's people are told."""

    threshold = yuan(gettext_lazy("tell below, yuan"))


@reseller_required
@require_http_methods(_SHOWN)
def wallet_page(request: PortalRequest) -> HttpResponse:
    """Show the wallet and what moved it; take a top-up that was sent."""
    form = TopUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and _ask_top_up(request, form):
        return redirect("portal:wallet")
    if lists.wants_file(request):
        return lists.file_of("wallet", MOVES, own.wallet_moves(request.reseller))
    notice = own.wallet_notice(request.reseller)
    context = {
        "title": _("Wallet"),
        "balance": show_money(own.accounts(request.reseller).wallet),
        "form": form,
        "notice": NoticeForm(initial={"threshold": notice.threshold if notice else None}),
        "moves": lists.paged(request, MOVES, own.wallet_moves(request.reseller)),
        "top_ups": lists.paged(request, TOP_UPS, own.top_ups(request.reseller), parameter="asked"),
    }
    return render(request, "portal/wallet.html", context)


def _ask_top_up(request: PortalRequest, form: TopUpForm) -> bool:
    try:
        throttle.count(what="portal_topup", who=str(request.reseller.pk), limit=50, seconds=86400)
        with transaction.atomic():
            asked = wallet.request_topup(
                reseller_id=request.reseller.pk,
                amount=form.cleaned_data["amount"],
                bank_reference=form.cleaned_data["bank_reference"],
                requested_by_id=request.user.pk,
            )
            record(request, asked, _("A top-up was asked for."), is_new=True)
    except ProductError as refused:
        form.add_error(None, str(refused.msg))
        return False
    messages.success(request, _("Thank you. The wallet is filled once the operator has found the money."))
    return True


@reseller_required
@require_POST
def wallet_notice(request: PortalRequest) -> HttpResponse:
    """Set below which balance the reseller's people are told by mail."""
    form = NoticeForm(request.POST)
    if form.is_valid():
        with transaction.atomic():
            kept = wallet.set_threshold(reseller_id=request.reseller.pk, threshold=form.cleaned_data["threshold"])
            record(request, kept, _("The threshold was set."))
        messages.success(request, _("You will be told by mail."))
    else:
        messages.error(request, " ".join(str(fault) for fault in form.errors["threshold"]))
    return redirect("portal:wallet")


COMMISSIONS = (
    Column(label=gettext_lazy("day"), show=lambda row: row.day.isoformat()),
    Column(label=gettext_lazy("tenant"), show=lambda row: row.tenant.name),
    Column(label=gettext_lazy("level"), show=lambda row: row.get_level_display()),
    lists.money(gettext_lazy("amount"), lambda row: row.amount),
    lists.money(gettext_lazy("netted"), lambda row: row.netted),
    lists.money(gettext_lazy("taken back"), lambda row: row.taken_back),
    _state(),
    lists.moment(gettext_lazy("frozen until"), lambda row: row.release_at),
    Column(label=gettext_lazy("why it is held back"), show=lambda row: row.dispute),
)
BACKS = (
    lists.moment(gettext_lazy("when"), lambda row: row.created_at),
    Column(label=gettext_lazy("tenant"), show=lambda row: row.tenant.name),
    lists.money(gettext_lazy("amount"), lambda row: row.amount),
    Column(label=gettext_lazy("reason"), show=lambda row: row.reason),
)


@reseller_required
@require_safe
def commissions(request: PortalRequest) -> HttpResponse:
    """List commissions by day and tenant, and what refunds took back of them."""
    rows, state = own.commissions(request.reseller), lists.asked(request, "state")
    if state in Commission.State.values:
        rows = rows.filter(state=state)
    if tenant := lists.asked(request, "tenant"):
        rows = rows.filter(tenant__slug=tenant)
    if lists.wants_file(request):
        return lists.file_of("commissions", COMMISSIONS, rows)
    days = figures.RANGES[1]
    daily, first = own.shares_by_day(request.reseller, began=figures.began(days)), figures.began(days)
    context = {
        "title": _("Commissions"),
        "tiles": money_tiles(own.accounts(request.reseller))[1:],
        "chart": charts.bars(
            _("Own share per day"),
            [
                charts.Point(
                    label=f"{day:%m-%d}", value=daily.get(day, 0), text=show_money(daily.get(day, 0)), url="#list"
                )
                for day in (first + (figures.today() - first) * number // (days - 1) for number in range(days))
            ],
            style="third",
        ),
        "states": Commission.State.choices,
        "state": state,
        "tenant": tenant,
        "tenants": tenants_of(request.reseller).order_by("slug"),
        "table": lists.paged(request, COMMISSIONS, rows),
        "backs": lists.paged(request, BACKS, own.taken_back(request.reseller), parameter="back"),
        "terms": terms_in_words(request.reseller.pk),
    }
    return render(request, "portal/commissions.html", context)


def terms_in_words(reseller_id: int) -> list[tuple[str, str]]:
    """Return what a reseller gets, line by line; nothing where no terms were agreed."""
    terms = commission_terms.terms_of(reseller_id=reseller_id)
    if terms is None:
        return []
    return [
        (_("of its own tenants"), shown_percent(terms.own_ppm)),
        (_("of its children's tenants"), shown_percent(terms.parent_ppm)),
        (_("days that a commission is frozen"), str(terms.freeze_days)),
        (_("smallest withdrawal"), show_money(terms.min_withdrawal)),
        (_("fee"), shown_percent(terms.withdrawal_fee_ppm)),
    ]


def shown_percent(ppm: int) -> str:
    """Return millionths as percent."""
    return f"{show_yuan(ppm * 100)} %"


WITHDRAWALS = (
    lists.moment(gettext_lazy("asked for"), lambda row: row.created_at),
    lists.money(gettext_lazy("amount"), lambda row: row.amount),
    lists.money(gettext_lazy("fee"), lambda row: row.fee),
    lists.money(gettext_lazy("paid out"), lambda row: row.payout),
    Column(label=gettext_lazy("to"), show=lambda row: f"{row.payee} {row.bank} …{row.bank_account[-4:]}"),
    _state(),
    lists.moment(gettext_lazy("decided"), lambda row: row.decided_at),
    lists.moment(gettext_lazy("ended"), lambda row: row.ended_at),
    Column(label=gettext_lazy("note"), show=lambda row: row.note),
    Column(label=gettext_lazy("by"), show=lambda row: row.maker.username),
)


class WithdrawalForm(forms.Form):
    """Takes how much is to be paid out, and where to."""

    amount = yuan(gettext_lazy("amount, yuan"))
    payee = forms.CharField(label=gettext_lazy("payee"), max_length=120)
    bank = forms.CharField(label=gettext_lazy("bank"), max_length=120)
    bank_account = forms.CharField(
        label=gettext_lazy("account number"), max_length=120, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )
    # The form's own, so that sent twice it asks once.
    number = forms.UUIDField(widget=forms.HiddenInput)


@sensitive_post_parameters("payee", "bank", "bank_account")
@reseller_required
@require_http_methods(_SHOWN)
def withdrawals(request: PortalRequest) -> HttpResponse:
    """List withdrawals, and take a new one."""
    last = own.withdrawals(request.reseller).first()
    form = WithdrawalForm(request.POST or None, initial=_payee_of(last))
    if request.method == "POST" and form.is_valid() and _ask_withdrawal(request, form):
        return redirect("portal:withdrawals")
    if lists.wants_file(request):
        return lists.file_of("withdrawals", WITHDRAWALS, own.withdrawals(request.reseller))
    terms = commission_terms.terms_of(reseller_id=request.reseller.pk)
    context = {
        "title": _("Withdrawals"),
        "available": show_money(own.accounts(request.reseller).withdrawable),
        "smallest": show_money(terms.min_withdrawal if terms else MIN_WITHDRAWAL),
        "fee": shown_percent(terms.withdrawal_fee_ppm if terms else 0),
        "form": form,
        "table": lists.paged(request, WITHDRAWALS, own.withdrawals(request.reseller)),
    }
    return render(request, "portal/withdrawals.html", context)


def _payee_of(last: Withdrawal | None) -> dict[str, Any]:
    """Return who was paid the last time; the account's number is typed again, so that no page holds it."""
    known = {"payee": last.payee, "bank": last.bank} if last else {}
    return {"number": uuid7(), **known}


def _ask_withdrawal(request: PortalRequest, form: WithdrawalForm) -> bool:
    try:
        throttle.count(what="portal_withdrawal", who=str(request.reseller.pk), limit=50, seconds=86400)
        with transaction.atomic():
            asked = withdrawal.request(reseller_id=request.reseller.pk, maker_id=request.user.pk, **form.cleaned_data)
            record(request, asked, _("A withdrawal was asked for."), is_new=True)
    except ProductError as refused:
        form.add_error(None, str(refused.msg))
        return False
    except IntegrityError:  # a number that no form of this reseller's had
        form.add_error(None, _("Please open the page again."))
        return False
    messages.success(request, _("The withdrawal was asked for. The operator decides about it."))
    return True
