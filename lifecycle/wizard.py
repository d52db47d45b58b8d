"""The wizard's steps: what is asked, what was typed so far, and the application that comes of it.

Every page keeps what was typed, right or wrong, before it says what is wrong; secrets are kept apart, encrypted, and
never shown again. Only the name is needed, so that every page can open the tenant at once.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import transaction
from django.utils.translation import gettext_lazy as _

from billing.ledger import MAX_AMOUNT
from billing.models import Channel, MerchantAccount
from billing.yuan import parse_yuan
from lifecycle import claims, opening
from lifecycle.models import Opening
from tenants.errors import ProductError
from tenants.models import Branding, Reseller, StaffUser
from tenants.models.tenant import APP_ID, LANGUAGES

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

_LONGEST: Final = 8000  # characters of one field that are kept
# Kept encrypted, and shown to nobody.
SECRET: Final = frozenset(
    {
        *("app_secret", "private_key", "api_v3_key", "secret_key", "webhook_secret"),
        *("app_key", "message_token", "message_key"),
    }
)


def _secret(label: "_StrOrPromise", *, lines: bool = False) -> forms.CharField:
    attributes = {"autocomplete": "off", "spellcheck": "false"}
    widget: forms.Widget = (
        forms.Textarea(attrs={**attributes, "rows": 4}) if lines else forms.PasswordInput(attrs=attributes)
    )
    return forms.CharField(label=label, required=False, max_length=_LONGEST, widget=widget)


class NameForm(forms.Form):
    """What the service is called."""

    name = forms.CharField(
        label=_("Name of the service"),
        max_length=80,
        help_text=_("What its users see. Everything else has a default and can be changed later."),
        widget=forms.TextInput(attrs={"autofocus": True}),
    )
    language = forms.ChoiceField(label=_("Its language"), choices=LANGUAGES, initial="zh-hans", required=False)


class BrandForm(forms.Form):
    """What its pages look like."""

    title = forms.CharField(
        label=_("Title of its pages"), max_length=80, required=False, help_text=_("Empty: its name.")
    )
    slogan = forms.CharField(label=_("Slogan"), max_length=160, required=False)
    primary_color = forms.CharField(
        label=_("Colour"),
        max_length=7,
        initial="#0f766e",
        required=False,
        widget=forms.TextInput(attrs={"type": "color"}),
        validators=[RegexValidator(r"\A#[0-9a-fA-F]{6}\Z", _("A colour such as #0f766e is wanted."))],
    )
    logo_url = forms.URLField(
        label=_("Address of the logo"),
        max_length=200,
        required=False,
        assume_scheme="https",
        help_text=_("A square picture on the web, such as https://example.com/logo.png."),
    )
    welcome = forms.CharField(
        label=_("Welcome"), max_length=2000, required=False, widget=forms.Textarea(attrs={"rows": 3})
    )


class AddressForm(forms.Form):
    """Where it is reached."""

    slug = forms.CharField(
        label=_("Subdomain"),
        max_length=40,
        required=False,
        validators=[
            RegexValidator(
                r"\A[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z",
                _("Small letters, digits and dashes, with a letter or digit at both ends."),
            )
        ],
        help_text=_("It is there from the first moment. Empty: made of the name."),
    )
    host = forms.CharField(
        label=_("Own domain, if there is one"),
        max_length=253,
        required=False,
        help_text=_("Such as chat.example.com; the checklist says how DNS proves it, and looks at the certificate."),
    )

    def clean_host(self) -> str:
        """Take a host name as people paste it, with scheme and path; who may have it is for DNS to prove."""
        typed: str = self.cleaned_data["host"].strip()
        try:
            return claims.fit(typed) if typed else ""
        except ProductError as refused:
            raise ValidationError(str(refused.msg)) from None

    def clean_slug(self) -> str:
        """Refuse the platform's own names before anything is opened."""
        slug: str = self.cleaned_data["slug"]
        if slug in opening.RESERVED:
            raise ValidationError(_("This name is the platform's own. Please choose another."))
        return slug


class MiniProgramForm(forms.Form):
    """The WeChat mini-program."""

    app_id = forms.CharField(
        label=_("App id"),
        max_length=32,
        required=False,
        help_text=_("In the mini-program's console under “Development settings”; begins with wx."),
    )
    app_secret = _secret(_("App secret"))

    def clean_app_id(self) -> str:
        """See that it looks like one; whether WeChat knows it is the checklist's to find out."""
        app_id: str = self.cleaned_data["app_id"]
        if app_id and not APP_ID.fullmatch(app_id):
            raise ValidationError(_("An app id such as wx1234567890abcdef is wanted."))
        return app_id


class PaymentForm(forms.Form):
    """How its users pay: one merchant account, of the tenant's own."""

    channel = forms.ChoiceField(label=_("Paid by"), required=False, choices=[("", _("Set up later")), *Channel.choices])
    merchant_id = forms.CharField(label=_("Merchant id"), max_length=64, required=False)
    merchant_app_id = forms.CharField(label=_("App id at the provider"), max_length=32, required=False)
    certificate_serial = forms.CharField(
        label=_("Serial number of the merchant's certificate"), max_length=64, required=False
    )
    private_key = _secret(_("Merchant's private key"), lines=True)
    api_v3_key = _secret(_("API v3 key"))
    platform_key_id = forms.CharField(label=_("Id of the platform's public key"), max_length=64, required=False)
    platform_public_key = forms.CharField(
        label=_("Platform's public key"), max_length=_LONGEST, required=False, widget=forms.Textarea(attrs={"rows": 4})
    )
    secret_key = _secret(_("Secret key"))
    webhook_secret = _secret(_("Webhook's signing secret"))
    app_key = _secret(_("App key"))
    message_token = _secret(_("Token of the message push"))
    message_key = _secret(_("EncodingAESKey of the message push"))

    def clean(self) -> dict[str, Any]:
        """Judge the account as its own form would."""
        if self.cleaned_data.get("channel"):
            try:
                MerchantAccount(**self.merchant()).clean()
            except ValidationError as wrong:
                for name, said in wrong.message_dict.items():
                    self.add_error("merchant_app_id" if name == "app_id" else name, said)
        return self.cleaned_data

    def merchant(self) -> dict[str, str]:
        """Return the fields of a merchant account; none where it is set up later."""
        given = {name: str(value) for name, value in self.cleaned_data.items() if value}
        if "channel" not in given:
            return {}
        if app_id := given.pop("merchant_app_id", ""):
            given["app_id"] = app_id
        return given


class ModelsForm(forms.Form):
    """What it sells."""

    template = forms.ChoiceField(label=_("Models and prices"), required=False)
    markup = forms.IntegerField(
        label=_("Percent above what you pay"),
        min_value=0,
        max_value=opening.MAX_MARKUP_PERCENT,
        required=False,
        help_text=_("Your users pay what a model costs you and so much more. Empty: as the template says."),
    )
    wallet = forms.CharField(
        label=_("Yuan for its wallet, from yours"),
        required=False,
        max_length=16,
        widget=forms.TextInput(attrs={"inputmode": "decimal"}),
        help_text=_("Its answers are paid from it. Empty: what the platform gives for the trial."),
    )
    no_guests = forms.BooleanField(label=_("Only people who have signed up may chat"), required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["template"]
        field.choices = [(template.slug, template.name) for template in opening.templates()]  # type: ignore[attr-defined]

    def clean_wallet(self) -> int:
        """Return micro-yuan."""
        typed: str = self.cleaned_data["wallet"].strip()
        try:
            amount = parse_yuan(typed) if typed else 0
        except ValueError:
            amount = -1
        if not 0 <= amount <= MAX_AMOUNT:
            raise ValidationError(_("An amount in yuan such as 20 or 12.50 is wanted."))
        return amount


class StaffForm(forms.Form):
    """Who looks after it."""

    owner_email = forms.EmailField(
        label=_("E-mail of the first owner"),
        required=False,
        help_text=_("Gets the invitation link. Empty: you are shown it, once, to pass it on."),
    )


class StepOfWizard(NamedTuple):
    """A page of the wizard."""

    name: str
    label: "_StrOrPromise"
    form: type[forms.Form]
    about: "_StrOrPromise"


STEPS: Final = (
    StepOfWizard("name", _("Name"), NameForm, _("The only thing that is needed.")),
    StepOfWizard("brand", _("Brand"), BrandForm, _("What its users see, on a phone and in a browser.")),
    StepOfWizard("address", _("Address"), AddressForm, _("Where its users come to.")),
    StepOfWizard("mini-program", _("Mini-program"), MiniProgramForm, _("For users inside WeChat. It can wait.")),
    StepOfWizard("payment", _("Payment"), PaymentForm, _("Users pay to the tenant's own account. It can wait.")),
    StepOfWizard("models", _("Models and prices"), ModelsForm, _("Sold above what they cost you, never below.")),
    StepOfWizard("staff", _("First log-in"), StaffForm, _("A link that works once lets the owner in.")),
)
BY_NAME: Final = {step.name: step for step in STEPS}
# Where a field of an application is asked for.
_ASKED_AT: Final = {
    **{name: step.name for step in STEPS for name in step.form.base_fields},
    "markup_ppm": "models",
    "timezone": "name",
}


def begin(*, reseller: Reseller, staff: StaffUser) -> Opening:
    """Return a new opening, with nothing typed yet."""
    opening_ = Opening(reseller=reseller, staff=staff)
    opening_.key = opening_.pk.hex
    opening_.save(force_insert=True)
    return opening_


def form_of(step: StepOfWizard, begun: Opening | None, *, check: bool = False) -> forms.Form:
    """Return a step's form with what was typed there so far; checked, if it was typed or is to be."""
    typed = dict(begun.answers.get(step.name, {})) if begun else {}
    kept = secrets_of(begun).get(step.name, {}) if begun else {}
    if not typed and not kept and not check:
        return step.form()
    form = step.form(data={**_defaults(step), **typed, **kept})
    for name in SECRET & set(form.fields):
        if kept.get(name):
            form.fields[name].widget.attrs["placeholder"] = _("Kept. Type only to replace it.")
    return form


@transaction.atomic
def keep(*, begun: Opening, step: StepOfWizard, typed: Mapping[str, str]) -> Opening:
    """Keep what was typed at a step as it stands; where a secret was left empty the one from before stays."""
    row = Opening.objects.select_for_update().get(pk=begun.pk)
    if row.slug:
        return row
    names = list(step.form.base_fields)
    row.answers[step.name] = {name: typed[name][:_LONGEST] for name in names if name in typed and name not in SECRET}
    kept = secrets_of(row)
    fresh = {name: typed[name].strip()[:_LONGEST] for name in names if name in SECRET and typed.get(name, "").strip()}
    kept[step.name] = {**kept.get(step.name, {}), **fresh}
    row.secrets = json.dumps(kept) if any(kept.values()) else ""
    row.save(update_fields=["answers", "secrets"])
    return row


def secrets_of(begun: Opening) -> dict[str, dict[str, str]]:
    """Return the secrets that were typed so far, by step."""
    found: dict[str, dict[str, str]] = json.loads(begun.secrets) if begun.secrets else {}
    return found


def first_wrong(begun: Opening) -> StepOfWizard | None:
    """Return the first step that cannot be taken as it was typed; None if all can."""
    for step in STEPS:
        if not form_of(step, begun, check=True).is_valid():
            return step
    return None


def application(begun: Opening) -> opening.Application:
    """Return what was typed as an application; every step is right (`first_wrong`)."""
    given: dict[str, Any] = {}
    merchant: dict[str, str] = {}
    for step in STEPS:
        form = form_of(step, begun, check=True)
        form.is_valid()
        if isinstance(form, PaymentForm):
            merchant = form.merchant()
        else:
            given |= {name: value for name, value in form.cleaned_data.items() if value not in (None, "")}
    markup, no_guests = given.pop("markup", None), given.pop("no_guests", False)
    return opening.Application(
        **given,
        allow_guest=not no_guests,
        merchant=merchant,
        markup_ppm=None if markup is None else markup * 10_000,
    )


def step_of(refusal: ProductError) -> StepOfWizard:
    """Return the page where what was refused can be mended."""
    if refusal.type == "reseller_wallet_short":
        return BY_NAME["models"]
    for name in refusal.facts.get("fields", []):
        if str(name).startswith("merchant."):
            return BY_NAME["payment"]
        if name in _ASKED_AT:
            return BY_NAME[_ASKED_AT[name]]
    return BY_NAME["name"]


def brand_of(begun: Opening | None) -> Branding:
    """Return the brand as it would be, for the preview."""
    typed = begun.answers if begun else {}
    brand, name = typed.get("brand", {}), typed.get("name", {}).get("name", "")
    return Branding(
        title=brand.get("title") or name,
        slogan=brand.get("slogan", ""),
        logo_url=brand.get("logo_url", ""),
        primary_color=brand.get("primary_color") or "#0f766e",
        welcome=brand.get("welcome", ""),
    )


def _defaults(step: StepOfWizard) -> dict[str, Any]:
    """Return what an untouched page would send."""
    return {name: field.initial for name, field in step.form.base_fields.items() if field.initial not in (None, "")}
