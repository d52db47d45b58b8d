"""The price list in the admin: new versions are published against their floors, and an example chat is reckoned."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, ClassVar, Final
from zoneinfo import ZoneInfo

import structlog
from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from billing import commission_terms, notices, pricing
from billing.admin.books import MoneyAdmin, yuan_column
from billing.models import PriceVersion
from billing.models.price import MAX_MULTIPLIER_PPM, MAX_PER_CALL, MAX_RATE, MAX_TOKENS
from billing.models.resale import WHOLE_PPM
from billing.pricing import Quantities
from billing.yuan import MICRO, parse_yuan, show_money, show_yuan
from tenants.adminsite import register
from tenants.errors import ProductError
from tenants.models import Membership, Tenant

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

    _PriceForm = forms.ModelForm[PriceVersion]
else:
    _PriceForm = forms.ModelForm  # cannot be subscripted at run time

logger = structlog.get_logger(__name__)

Level = PriceVersion.Level
Role = Membership.Role
# The form's fields of a price, with the column of each and its name.
RATES: Final[dict[str, tuple[str, "_StrOrPromise"]]] = {
    "prompt": ("prompt_rate", _("prompt, yuan per million tokens")),
    "cached": ("cached_rate", _("cached prompt, yuan per million tokens")),
    "completion": ("completion_rate", _("completion, yuan per million tokens")),
    "call": ("per_call", _("per call, yuan")),
}

MOST: Final = {**dict.fromkeys(RATES, MAX_RATE), "call": MAX_PER_CALL, "multiplier": MAX_MULTIPLIER_PPM}


def _decimal(label: "_StrOrPromise", initial: str, help_text: "_StrOrPromise" = "") -> forms.CharField:
    """Make a field that takes an amount as people write it."""
    widget = UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"})
    return forms.CharField(label=label, max_length=20, initial=initial, help_text=help_text, widget=widget)


class PriceForm(_PriceForm):
    """A new version, in yuan."""

    prompt = _decimal(RATES["prompt"][1], "")
    cached = _decimal(RATES["cached"][1], "")
    completion = _decimal(RATES["completion"][1], "")
    call = _decimal(RATES["call"][1], "0")
    multiplier = _decimal(_("multiplier of the three rates"), "1", _("At most six decimals, such as 1.25."))
    from_moment = forms.SplitDateTimeField(
        label=_("effective from"),
        required=False,
        widget=UnfoldAdminSplitDateTimeWidget(),
        help_text=_("Empty: at once. A version that was published can only be followed by another."),
    )
    accept = forms.BooleanField(
        label=_("Publish it although others come under water"), required=False, widget=UnfoldBooleanWidget()
    )
    # Whom the person was told of: a tick counts for these and no others.
    told = forms.CharField(required=False, widget=forms.HiddenInput())

    class Meta:
        model = PriceVersion
        fields: ClassVar[list[str]] = ["level", "tenant", "reseller", "sku"]

    def clean(self) -> dict[str, Any]:
        """Refuse what cannot be published, with the field and the floor; ask about what comes under water."""
        cleaned = super().clean() or self.cleaned_data
        amounts = {name: self._amount(name) for name in (*RATES, "multiplier")}
        if self.errors or None in amounts.values():
            return cleaned
        price = self.instance
        for name, (column, _label) in RATES.items():
            setattr(price, column, amounts[name])
        price.multiplier_ppm = amounts["multiplier"] or 0
        moment, now = cleaned.get("from_moment"), timezone.now()
        if moment is not None and now - timedelta(minutes=1) < moment <= now:
            # Whoever types the present minute means now; as a moment it has passed.
            moment = cleaned["from_moment"] = None
        price.effective_at = moment or now
        self._check_owner(price)
        if not self.errors:
            self._check_floors(price)
        if not self.errors:
            self._ask_about(price)
        return cleaned

    def _post_clean(self) -> None:
        """Leave the row to `pricing.publish_price`, which the database then holds to its bounds."""

    def _amount(self, name: str) -> int | None:
        try:
            amount = parse_yuan(self.cleaned_data.get(name) or "")
        except ValueError:
            amount = -1
        if not 0 <= amount <= MOST[name]:
            if name not in self.errors:
                text = _("An amount such as 10 or 0.50 is wanted, with at most six decimals and at most %(most)s.")
                self.add_error(name, text % {"most": show_yuan(MOST[name])})
            return None
        return amount

    def _check_owner(self, price: PriceVersion) -> None:
        for name in ("level", "tenant", "reseller", "sku"):
            if name in self.cleaned_data:
                setattr(price, name, self.cleaned_data[name])
        if "sku" in self.errors:
            return
        if (price.level == Level.RETAIL) != (price.tenant_id is not None):
            self.add_error(None, _("A retail price has a tenant, other prices have none."))
        if price.reseller_id is not None and price.level != Level.WHOLESALE:
            self.add_error("reseller", _("Only a wholesale price can be one reseller's."))
        if price.cached_rate > price.prompt_rate:
            self.add_error("cached", _("Cached tokens cannot cost more than others."))
        if price.effective_at < timezone.now() - timedelta(minutes=1):
            self.add_error("from_moment", _("This moment has passed."))
        try:
            price.clean_fields(exclude=["id", "tenant", "created_at", "created_by", "effective_at"])
        except ValidationError as fault:
            self.add_error(None, [message for messages in fault.message_dict.values() for message in messages])

    def _check_floors(self, price: PriceVersion) -> None:
        if price.level == Level.COST:
            return
        floors = pricing.floors_of(
            level=price.level,
            sku=price.sku,
            tenant_id=price.tenant_id,
            reseller_id=price.reseller_id,
            at=price.effective_at,
        )
        if not floors or floors[0].price.effective_at > price.effective_at:
            self.add_error("sku", _("Publish the price below this one first: cost, then wholesale, then retail."))
        for floor in floors:
            for name, (column, _label) in RATES.items():
                if least := _uncovered(price, floor, column):
                    self.add_error(name, _floor_text(price, floor, least))

    def _ask_about(self, price: PriceVersion) -> None:
        under = pricing.under_water(price=price)
        if price.level == Level.WHOLESALE:
            names = ", ".join(slug for _level, slug in under)
            text = _("With this price these tenants sell below what they pay, until they raise theirs: %(tenants)s.")
        else:
            names = notices.named(under)
            text = _("With this cost these prices bring less than the platform pays, until they rise: %(prices)s.")
        if not under or (self.cleaned_data.get("accept") and self.cleaned_data.get("told") == names):
            return
        self.data = {**self.data.dict(), "told": names}  # type: ignore[attr-defined]  # a form of this site gets a query
        self.add_error("accept", text % {"tenants": names, "prices": names})


def _uncovered(price: PriceVersion, floor: pricing.Floor, column: str) -> int:
    """Return the least that a column would have to be, micro-yuan; 0 where it is enough."""
    ours, theirs = (1, 1) if column == "per_call" else (price.multiplier_ppm, floor.price.multiplier_ppm)
    kept, wanted = ours * floor.kept_ppm, int(getattr(floor.price, column)) * theirs * WHOLE_PPM
    if getattr(price, column) * kept >= wanted:
        return 0
    return -(-wanted // kept) if kept else wanted


def _floor_text(price: PriceVersion, floor: pricing.Floor, least: int) -> str:
    began, facts = floor.price.effective_at, {"least": show_yuan(least)}
    if began <= price.effective_at:
        text = str(_("At least %(least)s is wanted: less is below what the item costs.") % facts)
    else:
        facts["moment"] = timezone.localtime(began).strftime("%Y-%m-%d %H:%M")
        text = str(_("At least %(least)s is wanted: from %(moment)s on less is below what the item costs.") % facts)
    shared = "" if floor.kept_ppm == WHOLE_PPM else _("Resellers get their shares of this price.")
    return f"{text} {shared}".rstrip()


class PriceVersionAdmin(MoneyAdmin):
    """The price list: at a tenant's site its own retail prices. A version is published, and never changed."""

    form = PriceForm
    editable_by: ClassVar[frozenset[str]] = frozenset({Role.OWNER, Role.FINANCE})
    list_display = (
        "id",
        "sku",
        "level",
        "state",
        "effective_at",
        yuan_column("prompt_rate", _("prompt, per million tokens")),
        yuan_column("cached_rate", _("cached prompt, per million tokens")),
        yuan_column("completion_rate", _("completion, per million tokens")),
        yuan_column("per_call", _("per call")),
        "multiplier",
    )
    list_filter = ("level",)
    search_fields = ("sku",)
    ordering = ("sku", "level", "-effective_at", "-id")
    list_before_template = "prices/before_list.html"  # type: ignore[assignment]  # unfold says None, and takes a name
    shown: ClassVar[tuple[str, ...]] = (
        *("level", "reseller", "sku", "prompt_rate", "cached_rate", "completion_rate", "per_call", "multiplier"),
        *("effective_at", "created_at", "created_by"),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let those publish who may."""
        return self.may_edit(request)

    def get_urls(self) -> list[Any]:
        """Add the calculator."""
        view = self.admin_site.admin_view(self.calculator)
        return [path("calculator/", view, name="billing_priceversion_calculator"), *super().get_urls()]

    def get_fields(self, request: HttpRequest, obj: PriceVersion | None = None) -> Any:
        """Ask for yuan; a tenant's staff publish retail prices of their own only."""
        owner: tuple[str, ...] = ("level", "tenant", "reseller") if self._on_platform else ()
        if obj is not None:
            return ("tenant", *self.shown) if self._on_platform else self.shown
        asked = (*owner, "sku", *RATES, "multiplier", "from_moment")
        return (*asked, "accept", "told") if self._on_platform else asked

    def get_readonly_fields(self, request: HttpRequest, obj: PriceVersion | None = None) -> Any:
        """Show a published version as it is."""
        return ("tenant", *self.shown) if obj is not None else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002  # Django's signature
        """Offer the skus that can be priced; a tenant's staff see the floor of each."""
        if obj is not None:
            return super().get_form(request, obj, change, **kwargs)
        made = super().get_form(request, obj, change, **kwargs)
        tenant = None if self._on_platform else request.tenant  # type: ignore[attr-defined]  # the middleware's

        class Bound(made):  # type: ignore[misc, valid-type]  # the class that Django has just made
            def __init__(self, *args: Any, **more: Any) -> None:
                super().__init__(*args, **more)
                if tenant is not None:
                    self.instance.level, self.instance.tenant = Level.RETAIL, tenant
                    choices = list(_skus_with_floors(tenant))
                    self.fields["sku"] = forms.ChoiceField(
                        label=_("price list item"), choices=choices, widget=UnfoldAdminSelectWidget
                    )

        return Bound

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Publish it, and tell those whom it puts under water."""
        moment: datetime | None = form.cleaned_data.get("from_moment")
        under = pricing.under_water(price=obj)
        made = pricing.publish_price(
            level=obj.level,
            tenant_id=obj.tenant_id,
            reseller_id=obj.reseller_id,
            sku=obj.sku,
            prompt_rate=obj.prompt_rate,
            cached_rate=obj.cached_rate,
            completion_rate=obj.completion_rate,
            per_call=obj.per_call,
            multiplier_ppm=obj.multiplier_ppm,
            effective_at=moment,
            actor=request.user.get_username(),
        )
        obj.pk = made.pk
        logger.info("price_published", staff=request.user.pk, price=made.pk, sku=made.sku, level=str(made.level))
        # After the commit: no mail of a price that was not published, and no lock held while a mail server is slow.
        transaction.on_commit(lambda: notices.under_water(price=made, under=under))

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: Any) -> None:
        """Save nothing: a version has no other rows."""

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Read and show times in the site's zone: the tenant's, or the operator's."""
        with timezone.override(self._zone(request)):
            response = super().changeform_view(request, *args, **kwargs)
            return response.render() if isinstance(response, TemplateResponse) else response

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the way to the calculator above the list, and a tenant's prices that are under water."""
        more: dict[str, Any] = {"calculator_url": self._url("calculator")}
        tenant = None if self._on_platform else request.tenant  # type: ignore[attr-defined]  # as above
        if tenant is not None:
            more["under_water"] = [
                {"sku": retail.sku, "since": max(retail.effective_at, floor.effective_at)}
                for retail, floor in pricing.below_floor(tenant_id=tenant.pk)
            ]
        with timezone.override(self._zone(request)):
            response = super().changelist_view(request, {**(extra_context or {}), **more})
            return response.render() if isinstance(response, TemplateResponse) else response

    def calculator(self, request: HttpRequest) -> HttpResponse:
        """Show what an example chat costs each party; a tenant's staff see their own two sides of it."""
        if not self.has_view_permission(request):
            return HttpResponse(status=403)
        tenant = None if self._on_platform else request.tenant  # type: ignore[attr-defined]  # as above
        form = CalculatorForm(request.GET or None, tenant=tenant)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Price calculator"),
            "form": form,
            "opts": self.opts,
            "back": self._url("changelist"),
        }
        if form.is_valid():
            context |= form.reckoned()
        return TemplateResponse(request, "prices/calculator.html", context)

    def _zone(self, request: HttpRequest) -> tzinfo:
        if self._on_platform:
            return timezone.get_default_timezone()
        return ZoneInfo(request.tenant.timezone)  # type: ignore[attr-defined]  # as above

    def _url(self, name: str) -> str:
        return reverse(f"{self.admin_site.name}:billing_priceversion_{name}")

    @admin.display(description=_("state"))
    def state(self, row: PriceVersion) -> "_StrOrPromise":
        """Say whether the version counts now."""
        if row.effective_at > timezone.now():
            return _("to come")
        return _("superseded") if row.is_superseded else _("in force")  # type: ignore[attr-defined]  # get_queryset's

    @admin.display(description=_("multiplier"), ordering="multiplier_ppm")
    def multiplier(self, row: PriceVersion) -> str:
        """Show the multiplier as it was typed."""
        return show_yuan(row.multiplier_ppm)

    def get_queryset(self, request: HttpRequest) -> QuerySet[PriceVersion]:
        """Look up for each version whether a later one of the same owner has taken its place."""
        owner = {"tenant": Coalesce("tenant_id", 0), "reseller": Coalesce("reseller_id", 0)}
        later = PriceVersion.objects.alias(**{f"of_{name}": value for name, value in owner.items()}).filter(
            Q(effective_at__gt=OuterRef("effective_at"))
            | Q(effective_at=OuterRef("effective_at"), pk__gt=OuterRef("pk")),
            sku=OuterRef("sku"),
            level=OuterRef("level"),
            effective_at__lte=timezone.now(),
            **{f"of_{name}": Coalesce(OuterRef(f"{name}_id"), 0) for name in owner},
        )
        rows: QuerySet[PriceVersion] = super().get_queryset(request)
        return rows.annotate(is_superseded=Exists(later))


def _skus_with_floors(tenant: Tenant) -> Iterator[tuple[str, str]]:
    """Yield what the tenant could price, each with what it pays for it now."""
    you_pay = _("you pay")
    for sku, floor in pricing.paid_now(tenant_id=tenant.pk).items():
        rates = " / ".join(show_yuan(getattr(floor, column)) for column, _label in list(RATES.values())[:3])
        more = f" + {show_yuan(floor.per_call)}" if floor.per_call else ""
        times = f" × {show_yuan(floor.multiplier_ppm)}" if floor.multiplier_ppm != MICRO else ""
        yield sku, f"{sku}  ({you_pay}: ¥{rates}{times}{more})"


class CalculatorForm(forms.Form):
    """An example chat."""

    sku = forms.CharField(label=_("price list item"), max_length=80)
    answers = forms.IntegerField(label=_("answers"), min_value=1, max_value=1_000_000, initial=1)
    prompt = forms.IntegerField(label=_("prompt tokens"), min_value=0, max_value=MAX_TOKENS, initial=1000)
    cached = forms.IntegerField(label=_("of them cached"), min_value=0, max_value=MAX_TOKENS, initial=0)
    completion = forms.IntegerField(label=_("completion tokens"), min_value=0, max_value=MAX_TOKENS, initial=500)

    def __init__(self, data: Any, *, tenant: Tenant | None) -> None:
        super().__init__(data)
        self._tenant = tenant
        skus = pricing.priceable_skus(tenant_id=tenant.pk if tenant else None)
        self.fields["sku"] = forms.ChoiceField(label=_("price list item"), choices=[(sku, sku) for sku in skus])
        if tenant is None:
            tenants = Tenant.objects.order_by("slug")
            self.fields["tenant"] = forms.ModelChoiceField(label=_("tenant"), queryset=tenants, to_field_name="slug")
        for field in self.fields.values():
            select = isinstance(field, forms.ChoiceField)
            field.widget = _restyled(field.widget, UnfoldAdminSelectWidget if select else UnfoldAdminIntegerFieldWidget)

    def clean(self) -> dict[str, Any]:
        """Refuse more cached tokens than there are."""
        cleaned = super().clean() or self.cleaned_data
        if cleaned.get("cached", 0) > cleaned.get("prompt", 0):
            self.add_error("cached", _("Not more can be cached than there are."))
        return cleaned

    def reckoned(self) -> dict[str, Any]:
        """Return what the page shows: each side of the chat, and who keeps what of it."""
        asked = self.cleaned_data
        tenant: Tenant = self._tenant or asked["tenant"]
        try:
            prices = pricing.current_prices(tenant_id=tenant.pk, sku=asked["sku"])
        except ProductError as refusal:
            self.add_error("sku", str(refusal.msg))
            return {}
        used = Quantities(prompt=asked["prompt"], cached=asked["cached"], completion=asked["completion"])
        retail, wholesale, cost = (
            pricing.amount(price, used) * asked["answers"] for price in (prices.retail, prices.wholesale, prices.cost)
        )
        shares = split_shares(
            wholesale=pricing.amount(prices.wholesale, used), answers=asked["answers"], shares=shares_of(tenant)
        )
        sides = [(_("the user pays"), retail), (_("the tenant pays"), wholesale)]
        kept: list[tuple[_StrOrPromise, int, str]] = [(_("tenant's margin"), retail - wholesale, "#0f766e")]
        if self._tenant is None:
            sides.append((_("the platform pays"), cost))
            kept += [(name, amount, "#c026d3") for name, amount in shares]
            platform = wholesale - cost - sum(amount for _name, amount in shares)
            kept.append((_("platform's margin"), platform, "#2563eb"))
            kept.append((_("provider"), cost, "#9ca3af"))
        else:
            kept.append((_("wholesale"), wholesale, "#9ca3af"))
        whole = sum(max(amount, 0) for _name, amount, _color in kept) or 1
        return {
            "sides": [(name, show_money(amount)) for name, amount in sides],
            "kept": [
                {
                    "name": name,
                    "amount": show_money(amount),
                    "color": color,
                    "percent": max(amount, 0) * 1000 // whole / 10,
                }
                for name, amount, color in kept
            ],
        }


def shares_of(tenant: Tenant) -> list[tuple[str, int]]:
    """Return who gets how many millionths of the tenant's wholesale charges: resellers, the nearest first."""
    seller = tenant.reseller
    if seller is None:
        return []
    shares = [(seller.name, own.own_ppm if (own := commission_terms.terms_of(reseller_id=seller.pk)) else 0)]
    if seller.parent is not None:
        above = commission_terms.terms_of(reseller_id=seller.parent.pk)
        shares.append((seller.parent.name, above.parent_ppm if above else 0))
    return [(name, ppm) for name, ppm in shares if ppm]


def split_shares(*, wholesale: int, answers: int, shares: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return what each gets of so many answers, micro-yuan; an answer's share is rounded down, as when charged."""
    return [(who, answers * (wholesale * ppm // MICRO)) for who, ppm in shares]


def _restyled(widget: forms.Widget, styled: type[forms.Widget]) -> forms.Widget:
    """Give a plain form's widget the admin's look."""
    made = styled(attrs=widget.attrs)
    if isinstance(widget, forms.Select) and isinstance(made, forms.Select):
        made.choices = widget.choices
    return made


register(PriceVersion, PriceVersionAdmin)
