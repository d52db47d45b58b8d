"""A reseller's sub-resellers: the list, opening one, their terms within one's own, and their figures.

A reseller of the second level has none: its pages of this kind do not exist. Of a sub-reseller's tenants the parent
sees what its own share comes from; their pages and what the sub-reseller earns are the sub-reseller's.
"""

from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from billing import commission_terms
from billing.portal import figures, lists, own
from billing.portal.figures import Figures
from billing.portal.forms import percent
from billing.portal.lists import Column
from billing.portal.money import shown_percent, terms_in_words
from billing.portal.tenants import MARKS
from billing.yuan import show_yuan
from tenants import scope, signup, throttle
from tenants.errors import ProductError
from tenants.models import Reseller, Tenant
from tenants.portal.access import PortalRequest, reseller_required
from tenants.portal.history import record
from tenants.portal.joining import is_taken

_SHOWN = ("GET", "HEAD", "POST")


def _children(request: PortalRequest) -> Any:
    """Return the reseller's own sub-resellers; there is nothing here for one of the second level."""
    if request.reseller.parent_id is not None:
        raise Http404
    return Reseller.objects.filter(parent=request.reseller)


COLUMNS = (
    Column(
        label=gettext_lazy("reseller"),
        show=lambda row: row["reseller"].name,
        url=lambda row: reverse("portal:reseller", args=[row["reseller"].slug]),
    ),
    lists.count(gettext_lazy("tenants"), lambda row: row["tenants"]),
    lists.count(gettext_lazy("users"), lambda row: row["sums"].users),
    lists.count(gettext_lazy("chats"), lambda row: row["sums"].answers),
    lists.money(gettext_lazy("wholesale charge"), lambda row: row["sums"].wholesale),
    lists.money(gettext_lazy("own share"), lambda row: row["sums"].share),
    Column(label=gettext_lazy("its share"), show=lambda row: row["terms"]),
    lists.moment(gettext_lazy("opened"), lambda row: row["reseller"].created_at),
)


@reseller_required
@require_safe
def resellers(request: PortalRequest) -> HttpResponse:
    """List the sub-resellers."""
    children = list(_children(request).annotate(count=Count("tenants")).order_by("name", "pk"))
    days = figures.days_of(request.GET.get("days"))
    owners = dict(Tenant.objects.filter(reseller__parent=request.reseller).values_list("pk", "reseller"))
    each = _figures(request, owners, days)
    terms = commission_terms.terms_in_force(reseller_ids=[child.pk for child in children])
    rows = [
        {
            "reseller": child,
            "tenants": child.count,
            "sums": figures.together(sums for pk, sums in each.items() if owners[pk] == child.pk),
            "terms": shown_percent(terms[child.pk].own_ppm) if child.pk in terms else "–",
        }
        for child in children
    ]
    if lists.wants_file(request):
        return lists.file_of("resellers", COLUMNS, rows)
    context = {
        "title": _("Sub-resellers"),
        "days": days,
        "ranges": figures.RANGES,
        "table": lists.paged(request, COLUMNS, rows),
    }
    return render(request, "portal/resellers.html", context)


def _figures(request: PortalRequest, tenants: Any, days: int) -> dict[int, Figures]:
    """Return the figures of sub-resellers' tenants, the share being the reader's own."""
    shares = own.shares_by_tenant(request.reseller, began=figures.began(days))
    with scope.several(tenants):
        return figures.by_tenant(days=days, shares={pk: share for pk, share in shares.items() if pk in tenants})


TENANTS = (
    Column(label=gettext_lazy("tenant"), show=lambda row: row["tenant"].name),
    Column(
        label=gettext_lazy("state"),
        show=lambda row: row["tenant"].get_status_display(),
        mark=lambda row: MARKS.get(row["tenant"].status, "off"),
    ),
    lists.count(gettext_lazy("users"), lambda row: row["sums"].users),
    lists.count(gettext_lazy("chats"), lambda row: row["sums"].answers),
    lists.money(gettext_lazy("wholesale charge"), lambda row: row["sums"].wholesale),
    lists.money(gettext_lazy("own share"), lambda row: row["sums"].share),
)


class ShareForm(forms.Form):
    """Takes what a sub-reseller gets of its own tenants' wholesale."""

    share = percent(gettext_lazy("percent of its own tenants' wholesale"))


@reseller_required
@require_http_methods(_SHOWN)
def reseller(request: PortalRequest, slug: str) -> HttpResponse:
    """Show a sub-reseller, and agree other terms with it."""
    child = get_object_or_404(_children(request), slug=slug)
    terms = commission_terms.terms_of(reseller_id=child.pk)
    form = ShareForm(request.POST or None, initial={"share": show_yuan(terms.own_ppm * 100) if terms else ""})
    if request.method == "POST" and form.is_valid() and _agreed(request, child, form):
        return redirect("portal:reseller", slug)
    days = figures.days_of(request.GET.get("days"))
    theirs = {tenant.pk: tenant for tenant in Tenant.objects.filter(reseller=child).order_by("name", "pk")}
    each = _figures(request, theirs, days)
    rows = [{"tenant": tenant, "sums": each.get(pk, Figures())} for pk, tenant in theirs.items()]
    context = {
        "title": child.name,
        "child": child,
        "days": days,
        "ranges": figures.RANGES,
        "form": form,
        "terms": terms_in_words(child.pk),
        "most": shown_percent(commission_terms.most_for_child(parent_id=request.reseller.pk)),
        "table": lists.paged(request, TENANTS, rows),
    }
    return render(request, "portal/reseller.html", context)


def _agreed(request: PortalRequest, child: Reseller, form: ShareForm) -> bool:
    try:
        with transaction.atomic():
            agreed = commission_terms.publish_child_terms(
                parent_id=request.reseller.pk,
                child_id=child.pk,
                own_ppm=form.cleaned_data["share"],
                actor=request.user.get_username(),
            )
            record(request, agreed, _("Terms were agreed."), is_new=True)
    except ProductError as refused:
        form.add_error("share", str(refused.msg))
        return False
    messages.success(request, _("The terms are in force."))
    return True


class OpenForm(ShareForm):
    """Takes who the new sub-reseller is."""

    name = forms.CharField(label=gettext_lazy("name of the firm"), max_length=80)
    slug = forms.SlugField(
        label=gettext_lazy("short name"),
        max_length=40,
        help_text=gettext_lazy("Latin letters, digits and dashes. It becomes their user name."),
    )
    contact = forms.CharField(label=gettext_lazy("contact person"), max_length=80)
    email = forms.EmailField(
        label=gettext_lazy("e-mail"),
        help_text=gettext_lazy("They are invited by mail, and accept the terms of service when they come."),
    )
    field_order = ("name", "slug", "contact", "email", "share")

    def clean_slug(self) -> str:
        """Refuse a short name that someone has."""
        slug = str(self.cleaned_data["slug"]).lower()
        if is_taken(slug):
            raise forms.ValidationError(_("This short name is taken."))
        return slug


@reseller_required
@require_http_methods(_SHOWN)
def open_reseller(request: PortalRequest) -> HttpResponse:
    """Open a sub-reseller and invite its first person."""
    _children(request)
    form = OpenForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and _opened(request, form):
        return redirect("portal:reseller", form.cleaned_data["slug"])
    context = {
        "title": _("Open a sub-reseller"),
        "form": form,
        "most": shown_percent(commission_terms.most_for_child(parent_id=request.reseller.pk)),
    }
    return render(request, "portal/open_reseller.html", context)


def _opened(request: PortalRequest, form: OpenForm) -> bool:
    given = {**form.cleaned_data}
    share = given.pop("share")
    try:
        # Mails go out to whom the form names.
        throttle.count(what="portal_reseller", who=str(request.reseller.pk), limit=20, seconds=86400)
        with transaction.atomic():
            child, _person = signup.open_reseller(
                parent=request.reseller, language=get_language() or "", link=invitation_link(request), **given
            )
            commission_terms.publish_child_terms(
                parent_id=request.reseller.pk, child_id=child.pk, own_ppm=share, actor=request.user.get_username()
            )
            record(request, child, _("A sub-reseller was opened."), is_new=True)
    except ProductError as refused:
        form.add_error(None, str(refused.msg))
        return False
    messages.success(request, _("They were invited by mail."))
    return True


def invitation_link(request: HttpRequest) -> Any:
    """Return what makes the address of an invitation."""
    return lambda *carried: request.build_absolute_uri(reverse("portal:invitation", args=carried))
