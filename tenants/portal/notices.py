"""What a reseller's people are told. Looking at the list is reading it."""

from typing import Final

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from tenants import noticeboard, scope
from tenants.portal.access import PortalRequest, reseller_required

_PAGE: Final = 20


@reseller_required
@require_safe
def notices(request: PortalRequest) -> HttpResponse:
    """Show the reseller's notices, the latest first, and take them for read."""
    with scope.platform("notices to a reseller are the platform's"):
        seen = noticeboard.last_seen(staff=request.user, tenant_id=None)
        rows = noticeboard.notices_of(tenant_id=None, reseller_id=request.reseller.pk).order_by("-id")
        page = Paginator(rows, _PAGE).get_page(request.GET.get("page"))
        shown = [(row, row.pk > seen) for row in page]
        if shown and page.number == 1:
            noticeboard.mark_read(staff=request.user, tenant_id=None, last_id=shown[0][0].pk)
            request.unread = 0
    return render(request, "portal/notices.html", {"title": _("Notices"), "page": page, "notices": shown})
