"""What a reseller's tenants pay and ask for: the price list, a calculator, and a new price within the floors."""

from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.db.models.functions import Now
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_safe

from billing import commission_terms, pricing
from billing.admin.prices import CalculatorForm
from billing.models import PriceVersion
from billing.models.price import MAX_PER_CALL, MAX_RATE
from billing.portal import lists
from billing.portal.forms import yuan
from billing.portal.lists import Column
from billing.pricing import Quantities
from billing.yuan import MICRO, show_money, show_yuan
from tenants import scope
from tenants.errors import ProductError
from tenants.models import Tenant
from tenants.portal.access import PortalRequest, reseller_required, tenants_of
from tenants.portal.history import record

_RATES = ("prompt_rate", "cached_rate", "completion_rate")


def _in_words(price: PriceVersion | None) -> str:
    """Return the rates in yuan per million tokens, what multiplies them, and what comes on top of each call."""
    if price is None:
        return "–"
    rates = " / ".join(show_yuan(getattr(price, rate)) for rate in _RATES)
    times = f" × {show_yuan(price.multiplier_ppm)}" if price.multiplier_ppm != MICRO else ""
    return f"¥{rates}{times}" + (f" + ¥{show_yuan(price.per_call)}" if price.per_call else "")


def _publish_url(row: dict[str, Any]) -> str:
    return f"{reverse('portal:price', args=[row['tenant'].slug])}?sku={row['sku']}"


COLUMNS = (
    Column(label=gettext_lazy("price list item"), show=lambda row: row["sku"]),
    Column(
        label=gettext_lazy("the tenant pays: prompt / cached / completion"), show=lambda row: _in_words(row["floor"])
    ),
    Column(label=gettext_lazy("its users pay"), show=lambda row: _in_words(row["retail"])),
    Column(
        label=gettext_lazy("state"),
        show=lambda row: _state(row)[0],
        mark=lambda row: _state(row)[1],
    ),
    Column(label="", show=lambda _row: _("New price"), url=_publish_url, plain=lambda _row: ""),
)


def _state(row: dict[str, Any]) -> tuple[str, str]:
    if row["retail"] is None:
        return _("not on sale"), "off"
    if not pricing.covers(price=row["retail"], floor=row["floor"]):
        return _("below what it costs"), "bad"
    return _("on sale"), "good"


@reseller_required
@require_safe
def prices(request: PortalRequest) -> HttpResponse:
    """Show the prices of one of the reseller's own tenants, and reckon what an example comes to."""
    mine = list(tenants_of(request.reseller).order_by("name", "pk"))
    slug = lists.asked(request, "tenant")
    if slug and slug not in {each.slug for each in mine}:
        return redirect("portal:prices")
    chosen = next((each for each in mine if each.slug == slug), mine[0] if mine else None)
    context: dict[str, Any] = {"title": _("Prices"), "tenants": mine, "tenant": chosen}
    if chosen is not None:
        rows = _priced(chosen)
        if lists.wants_file(request):
            return lists.file_of(f"prices-{chosen.slug}", COLUMNS[:-1], rows)
        form = Calculator(request.GET if "sku" in request.GET else None, tenant=chosen)
        context |= {
            "table": lists.table(COLUMNS, rows),
            "form": form,
            "reckoned": _reckoned(form, chosen) if form.is_valid() else [],
        }
    return render(request, "portal/prices.html", context)


class Calculator(CalculatorForm):
    """The admin's calculator with plain fields."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            attributes, choices = field.widget.attrs, getattr(field, "choices", None)
            plain = {name: value for name, value in attributes.items() if name != "class"}
            field.widget = forms.Select(plain, choices) if choices else forms.NumberInput(plain)


def _priced(tenant: Tenant) -> list[dict[str, Any]]:
    """Return each item that the tenant can sell, what it pays and what it asks for it."""
    retail = _retail(tenant)
    return [
        {"tenant": tenant, "sku": sku, "floor": floor, "retail": retail.get(sku)}
        for sku, floor in pricing.paid_now(tenant_id=tenant.pk).items()
    ]


def _retail(tenant: Tenant) -> dict[str, PriceVersion]:
    with scope.several([tenant.pk]):
        asked = PriceVersion.objects.filter(level=PriceVersion.Level.RETAIL, effective_at__lte=Now())
        return {price.sku: price for price in asked.order_by("effective_at", "pk")}


def _reckoned(form: Calculator, tenant: Tenant) -> list[dict[str, Any]]:
    """Return who gets what of the example; what the platform pays its providers is not the reseller's to know."""
    wanted = form.cleaned_data
    try:
        found = pricing.current_prices(tenant_id=tenant.pk, sku=wanted["sku"])
    except ProductError as refused:
        form.add_error("sku", str(refused.msg))
        return []
    used = Quantities(prompt=wanted["prompt"], cached=wanted["cached"], completion=wanted["completion"])
    retail, wholesale = pricing.amount(found.retail, used), pricing.amount(found.wholesale, used)
    terms = commission_terms.terms_of(reseller_id=tenant.reseller_id or 0)
    share = pricing.share(amount=wholesale, ppm=terms.own_ppm if terms else 0)
    lines = [
        (_("the user pays"), retail),
        (_("the tenant pays"), wholesale),
        (_("tenant's margin"), retail - wholesale),
        (_("own share"), share),
    ]
    return [
        {
            "name": name,
            "amount": show_money(amount * wanted["answers"]),
            "percent": max(amount, 0) * 100 // (retail or 1),
        }
        for name, amount in lines
    ]


class PriceForm(forms.Form):
    """Takes a retail price, in yuan."""

    sku = forms.ChoiceField(label=gettext_lazy("price list item"))
    prompt_rate = yuan(gettext_lazy("prompt, yuan per million tokens"), least=0, most=MAX_RATE)
    cached_rate = yuan(gettext_lazy("cached prompt, yuan per million tokens"), least=0, most=MAX_RATE)
    completion_rate = yuan(gettext_lazy("completion, yuan per million tokens"), least=0, most=MAX_RATE)
    per_call = yuan(gettext_lazy("per call, yuan"), least=0, most=MAX_PER_CALL)

    def __init__(self, *args: Any, skus: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["sku"] = forms.ChoiceField(label=gettext_lazy("price list item"), choices=[(s, s) for s in skus])

    def clean(self) -> dict[str, Any]:
        """Refuse a cached prompt that is dearer than a fresh one."""
        given = super().clean() or self.cleaned_data
        if given.get("cached_rate", 0) > given.get("prompt_rate", MAX_RATE):
            self.add_error("cached_rate", _("A cached prompt is not dearer than a fresh one."))
        return given


@reseller_required
@require_http_methods(("GET", "HEAD", "POST"))
def price(request: PortalRequest, slug: str) -> HttpResponse:
    """Publish a price that one of the reseller's own tenants asks its users for, from now on."""
    tenant = get_object_or_404(tenants_of(request.reseller), slug=slug)
    rows = {row["sku"]: row for row in _priced(tenant)}
    row = rows.get(lists.asked(request, "sku"))
    form = PriceForm(request.POST or None, skus=list(rows), initial=_initial(row))
    if request.method == "POST" and form.is_valid() and _published(request, tenant, form):
        return redirect(f"{reverse('portal:prices')}?tenant={slug}")
    context = {
        "title": _("New price"),
        "tenant": tenant,
        "form": form,
        "floors": [(sku, _in_words(each["floor"])) for sku, each in rows.items() if row is None or sku == row["sku"]],
    }
    return render(request, "portal/price.html", context)


def _initial(row: dict[str, Any] | None) -> dict[str, Any]:
    """Return what the form begins with: the present price, else the floor."""
    if row is None:
        return {"per_call": "0"}
    now: PriceVersion = row["retail"] or row["floor"]
    return {"sku": row["sku"], **{name: getattr(now, name) for name in (*_RATES, "per_call")}}


def _published(request: PortalRequest, tenant: Tenant, form: PriceForm) -> bool:
    try:
        with scope.tenant(tenant.pk), transaction.atomic():
            made = pricing.publish_price(
                level=PriceVersion.Level.RETAIL,
                tenant_id=tenant.pk,
                actor=request.user.get_username(),
                **form.cleaned_data,
            )
            record(request, made, _("A price was published."), is_new=True)
    except ProductError as refused:
        form.add_error(None, str(refused.msg))
        return False
    messages.success(request, _("The price is in force."))
    return True
