"""The reseller's monthly statements: the list, each to print or as a file, and the month so far."""

import structlog
from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from billing import statements
from billing.admin.statements import StatementPage, answer
from billing.models import Statement
from billing.portal import figures, lists, own
from billing.portal.lists import Column
from billing.statements import Figures, Period, StatementError
from tenants import scope
from tenants.portal.access import PortalRequest, reseller_required

log = structlog.get_logger(__name__)


def _page(row: Statement) -> str:
    return reverse("portal:statement", args=[row.pk])


COLUMNS = (
    Column(label=gettext_lazy("month"), show=lambda row: f"{row.month:%Y-%m}", url=_page),
    Column(label=gettext_lazy("number"), show=lambda row: row.number, url=_page),
    lists.moment(gettext_lazy("made"), lambda row: row.created_at),
    Column(label=gettext_lazy("file"), show=lambda _row: "CSV", url=lambda row: f"{_page(row)}?format=csv"),
)


@reseller_required
@require_safe
def listed(request: PortalRequest) -> HttpResponse:
    """List the statements."""
    context = {"title": _("Statements"), "table": lists.paged(request, COLUMNS, own.statements(request.reseller))}
    return render(request, "portal/statements.html", context)


@reseller_required
@require_safe
def statement(request: PortalRequest, pk: int) -> HttpResponse:
    """Show a statement that was made."""
    row = get_object_or_404(own.statements(request.reseller), pk=pk)
    shown = StatementPage(
        owner=request.reseller,
        period=Period.of_statement(row),
        figures=Figures.from_json(row.figures),
        number=row.number,
    )
    return answer(request, shown, back=reverse("portal:statements"))


@reseller_required
@require_safe
def so_far(request: PortalRequest) -> HttpResponse:
    """Show the present month."""
    period = Period.of_month(figures.today(), settings.TIME_ZONE)
    try:
        with scope.platform("a reseller's own statement"):
            before = statements.statement_before(month=period.month, reseller=request.reseller)
            period = period.after(before)
            reckoned = statements.figures_of_reseller(reseller=request.reseller, period=period)
    except StatementError:
        log.exception("statement_not_made", month=str(period.month), owner=request.reseller.slug)
        messages.error(request, _("The ledger does not add up at the moment. The operator has to look at it first."))
        return redirect("portal:statements")
    shown = StatementPage(owner=request.reseller, period=period, figures=reckoned)
    return answer(request, shown, back=reverse("portal:statements"))
