"""Who may enter the resellers' portal, and as which reseller.

    reseller_required    wraps a view: 404 elsewhere than on the platform's hosts, to the log-in whoever is nobody's,
                         to “Security” who lacks the second factor that resellers' people must have
    tenants_of           the tenants that a reseller opened
    tenants_below        those and its sub-resellers'

A view never takes the reseller from the address: it is `request.reseller`, the logged-in person's own. Rows of tenants
are read inside `scope.several(...)` of these, so that a forgotten filter shows nobody else's.
"""

from collections.abc import Callable
from functools import wraps
from typing import cast

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import translation
from django.views.decorators.cache import never_cache

from tenants import doors, noticeboard, scope, sessions
from tenants.models import PlatformMembership, Reseller, StaffUser, Tenant
from tenants.portal.navigation import Entry, navigation
from tenants.resolve import is_platform_host

View = Callable[..., HttpResponseBase]


class PortalRequest(HttpRequest):
    """A request inside the portal."""

    reseller: Reseller
    navigation: list[Entry]
    unread: int  # notices that the person has not looked at
    user: StaffUser  # nobody else comes in


def reseller_required(view: View) -> View:
    """Run a view for a reseller's people only, in their language, with `request.reseller` their own."""
    return _inside(view)


def reseller_even_half(view: View) -> View:
    """As `reseller_required`, for what must open before the second factor that is demanded has been set up."""
    return _inside(view, even_half=True)


def must_have_second_factor() -> bool:
    """Whether the setting says so of resellers' people."""
    return "reseller" in settings.TWO_FACTOR_ROLES


def _inside(view: View, *, even_half: bool = False) -> View:
    @wraps(view)
    def inside(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        reseller = reseller_of(request.user)
        if reseller is None or not sessions.attend(request, cast("StaffUser", request.user)):
            return redirect_to_login(request.get_full_path(), reverse("portal:log_in"))
        entered = cast("PortalRequest", request)
        entered.reseller = reseller
        if entered.user.language:
            translation.activate(entered.user.language)
        if must_have_second_factor() and not even_half and not request.session.get(doors.VERIFIED):
            return redirect("portal:security")
        entered.navigation = navigation(entered.path, is_first_level=reseller.parent_id is None)
        with scope.platform("notices to a reseller are the platform's"):
            entered.unread = noticeboard.unread(staff=entered.user, tenant_id=None, reseller_id=reseller.pk)
        return view(entered, *args, **kwargs)

    return on_platform_host(inside)


def on_platform_host(view: View) -> View:
    """Let a page of the portal exist on the platform's hosts only, and in no cache."""

    @wraps(view)
    def here(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        if not is_platform_host(request.get_host()):
            raise Http404
        return view(request, *args, **kwargs)

    return never_cache(here)


def reseller_of(user: object) -> Reseller | None:
    """Return whose portal a person enters: the reseller they work for, the first where there are several."""
    if not isinstance(user, StaffUser) or not user.is_active:
        return None
    mine = PlatformMembership.objects.filter(staff=user, role=PlatformMembership.Role.RESELLER)
    membership = mine.select_related("reseller__parent").order_by("pk").first()
    return membership.reseller if membership else None


def tenants_of(reseller: Reseller) -> QuerySet[Tenant]:
    """Return the tenants that are the reseller's own."""
    return Tenant.objects.filter(reseller=reseller)


def tenants_below(reseller: Reseller) -> QuerySet[Tenant]:
    """Return the reseller's own tenants and those of its sub-resellers."""
    return Tenant.objects.filter(Q(reseller=reseller) | Q(reseller__parent=reseller))
