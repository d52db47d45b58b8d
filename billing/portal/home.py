"""The portal's first page: how a reseller's tenants do."""

from django.http import HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from tenants.portal.access import PortalRequest, reseller_required


@reseller_required
@require_safe
def home(request: PortalRequest) -> HttpResponse:
    """Show how the reseller's tenants do."""
    return render(request, "portal/home.html", {"title": _("Home")})
