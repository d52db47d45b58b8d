"""Rewards in the admin: owners and finance set the rules; support sees what became of an invitation, and why."""

from typing import TYPE_CHECKING, Any, ClassVar

import structlog
from django import forms
from django.contrib import admin
from django.contrib.admin import EmptyFieldListFilter
from django.db import models
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.admin.books import CostAdmin, MoneyAdmin, yuan_column
from billing.admin.fields import YuanField
from billing.models import AdTicket, Invitation, InvitationReward, RewardDebt, RewardRules, SignIn
from billing.models.rewards import MAX_REWARD, MAX_STREAK
from billing.yuan import parse_yuan, show_yuan
from tenants.adminsite import TenantModelAdmin, register
from tenants.models import Membership

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

    _RulesForm = forms.ModelForm[RewardRules]
else:
    _RulesForm = forms.ModelForm  # cannot be subscripted at run time

Role = Membership.Role

logger = structlog.get_logger(__name__)

_TREASURERS = frozenset({Role.OWNER, Role.FINANCE})
_AMOUNTS = ("inviter_amount", "invitee_amount", "ad_amount")


def _micro(text: str) -> int:
    """Return micro-yuan; raise ValidationError for what is no reward's amount."""
    try:
        amount = parse_yuan(text.strip())
    except ValueError:
        amount = MAX_REWARD + 1
    if amount > MAX_REWARD:
        raise forms.ValidationError(
            _("Amounts such as 10 or 0.50 are wanted, at most %(limit)s each.") % {"limit": show_yuan(MAX_REWARD)}
        )
    return amount


class YuanListField(forms.CharField):
    """Amounts in yuan with blanks between; a list of micro-yuan once it is clean."""

    def __init__(self, *, label: "_StrOrPromise", help_text: "_StrOrPromise") -> None:
        widget = UnfoldAdminTextInputWidget()
        super().__init__(label=label, help_text=help_text, required=False, max_length=400, widget=widget)

    def clean(self, value: Any) -> list[int]:
        """Return micro-yuan for each day."""
        amounts = [_micro(text) for text in super().clean(value).split()]
        if len(amounts) > MAX_STREAK:
            raise forms.ValidationError(_("At most %(count)d days are wanted.") % {"count": MAX_STREAK})
        return amounts


class RewardRulesForm(_RulesForm):
    """Takes amounts in yuan, as people write them."""

    sign_in_yuan = YuanListField(
        label=_("sign-in, yuan for each day in a row"),
        help_text=_(
            "Amounts with blanks between, such as 0.1 0.1 0.2 0.5. After the last one it begins anew. Empty: off."
        ),
    )
    inviter_yuan = YuanField(label=_("for the inviter, yuan"), help_text=_("0: off."), least=0, most=MAX_REWARD)
    invitee_yuan = YuanField(label=_("for the invited user, yuan"), help_text=_("0: off."), least=0, most=MAX_REWARD)
    ad_yuan = YuanField(label=_("for an advertisement, yuan"), help_text=_("0: off."), least=0, most=MAX_REWARD)

    class Meta:
        model = RewardRules
        fields: ClassVar[list[str]] = [
            "tenant",
            "inviter_per_day",
            "inviter_total",
            "per_device",
            "per_address",
            "window_days",
            "ads_per_day",
            "ad_seconds",
            "ad_ticket_seconds",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rules = self.instance
        self.initial["sign_in_yuan"] = " ".join(show_yuan(amount) for amount in rules.sign_in_amounts)
        for name in _AMOUNTS:
            self.initial[name.replace("_amount", "_yuan")] = show_yuan(getattr(rules, name))

    def clean(self) -> dict[str, Any] | None:
        """Bring the amounts to the row."""
        cleaned = super().clean()
        for name in (*_AMOUNTS, "sign_in_amounts"):
            typed = name.replace("_amounts", "_yuan").replace("_amount", "_yuan")
            if typed in self.cleaned_data:
                setattr(self.instance, name, self.cleaned_data[typed])
        return cleaned


class RewardRulesAdmin(TenantModelAdmin):
    """What a tenant gives away: one row, which takes effect at once."""

    form = RewardRulesForm
    visible_to = editable_by = _TREASURERS
    list_display = (
        "id",
        "sign_in",
        yuan_column("inviter_amount", _("for the inviter")),
        yuan_column("invitee_amount", _("for the invited user")),
        yuan_column("ad_amount", _("for an advertisement")),
    )

    def get_fields(self, request: HttpRequest, obj: RewardRules | None = None) -> Any:
        """Show the amounts before their limits."""
        tenant = ("tenant",) if self._on_platform else ()
        invitations = ("inviter_yuan", "invitee_yuan", "inviter_per_day", "inviter_total")
        limits = ("per_device", "per_address", "window_days")
        return (
            *tenant,
            "sign_in_yuan",
            *invitations,
            *limits,
            "ad_yuan",
            "ads_per_day",
            "ad_seconds",
            "ad_ticket_seconds",
        )

    def get_readonly_fields(self, request: HttpRequest, obj: RewardRules | None = None) -> Any:
        """Keep a row with its tenant."""
        return ("tenant",) if obj is not None and self._on_platform else ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let a tenant have one set of rules."""
        return self.may_edit(request) and not self.has_its_row(request)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: rewards are turned off."""
        return False

    @admin.display(description=_("sign-in"))
    def sign_in(self, row: RewardRules) -> str:
        """Show the amounts of the days in a row."""
        return " ".join(f"¥{show_yuan(amount)}" for amount in row.sign_in_amounts) or "—"

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save, and write who did: the admin's own history can be lost with the database, the log goes elsewhere."""
        super().save_model(request, obj, form, change)
        amounts = {name: getattr(obj, name) for name in (*_AMOUNTS, "sign_in_amounts")}
        logger.info("reward_rules_set", staff=request.user.pk, tenant_id=obj.tenant_id, row=obj.pk, **amounts)


class _RewardAdmin(MoneyAdmin):
    """Rows about rewards: support may look, and a person is found by name, phone or e-mail."""

    visible_to: ClassVar[frozenset[str]] = CostAdmin.visible_to
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields: ClassVar[tuple[str, ...]] = ("user__username", "user__phone", "user__email")
    ordering = ("-id",)


class SignInAdmin(_RewardAdmin):
    """Who signed in, and what it brought."""

    list_display = ("id", "created_at", "user", "date", "streak", yuan_column("amount", _("amount")))


class AdTicketAdmin(_RewardAdmin):
    """Tickets for advertisements, and what became of them."""

    list_display = (
        "id",
        "created_at",
        "user",
        yuan_column("amount", _("amount")),
        "ready_at",
        "expires_at",
        "redeemed_at",
    )
    list_filter = (("redeemed_at", EmptyFieldListFilter),)
    exclude = ("nonce",)


class InvitationAdmin(_RewardAdmin):
    """Who brought whom, and why it is not rewarded if it is not."""

    list_display = (
        "id",
        "created_at",
        "inviter",
        "invitee",
        "state",
        "refusal",
        yuan_column("inviter_amount", _("for the inviter")),
        yuan_column("invitee_amount", _("for the invited user")),
        "vested_at",
    )
    list_filter = ("state", "refusal")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "inviter", "invitee")
    search_fields: ClassVar[tuple[str, ...]] = (
        "inviter__username",
        "inviter__phone",
        "invitee__username",
        "invitee__phone",
        "payment_ref",
    )
    # Digests say nothing to a person.
    exclude = ("device_digest", "address_digest")


class InvitationRewardAdmin(_RewardAdmin):
    """What the sides of vested invitations got, and what went back."""

    list_display = (
        "id",
        "created_at",
        "user",
        "side",
        yuan_column("amount", _("amount")),
        "state",
        "refusal",
        "given_on",
        yuan_column("taken", _("taken back")),
        yuan_column("owed", _("spent before")),
    )
    list_filter = ("state", "side", "refusal")


class RewardDebtAdmin(_RewardAdmin):
    """Who had spent rewards that were taken back."""

    list_display = ("id", "user", yuan_column("owed", _("owed")))


register(RewardRules, RewardRulesAdmin)
register(SignIn, SignInAdmin)
register(AdTicket, AdTicketAdmin)
register(Invitation, InvitationAdmin)
register(InvitationReward, InvitationRewardAdmin)
register(RewardDebt, RewardDebtAdmin)
