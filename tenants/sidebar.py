"""The admins' side bar: kinds of rows in groups that fold, what is wanted most often first.

A kind that stands in no group comes last, under "More"; a test wants none there.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

GROUPS: Final[tuple[tuple["_StrOrPromise", tuple[str, ...]], ...]] = (
    (
        _("Users"),
        (
            *("tenants.EndUser", "chat.Conversation", "chat.Message", "chat.Feedback", "chat.ShareLink"),
            *("chat.ApiKey", "tenants.WeChatIdentity", "tenants.AccessToken", "tenants.AccountDeletion"),
            "chat.ConversationLook",
        ),
    ),
    (
        _("Sales"),
        (
            *("billing.Order", "billing.Refund", "billing.Package", "billing.Plan", "billing.Subscription"),
            *("billing.RedeemBatch", "billing.RedeemCode", "billing.PriceVersion", "billing.FreeQuota", "billing.Cap"),
            *("billing.MerchantAccount", "billing.PaymentEvent", "billing.Bill", "billing.BillLine"),
        ),
    ),
    (
        _("Usage and books"),
        (
            *("billing.DailyUsage", "billing.UsageRecord", "billing.UsageAdjustment", "billing.QuotaUse"),
            *("billing.Statement", "billing.WalletTopUp", "billing.WalletNotice", "billing.Hold"),
            *("billing.Account", "billing.Transfer", "billing.Entry", "billing.AuditRun"),
        ),
    ),
    (
        _("Rewards"),
        (
            *("billing.RewardRules", "billing.Invitation", "billing.InvitationReward", "billing.SignIn"),
            *("billing.AdTicket", "billing.RewardDebt"),
        ),
    ),
    (
        _("Models and chat"),
        (
            *("chat.ModelOffer", "chat.ModelRoute", "chat.UpstreamAccount", "chat.Role", "chat.RoleCategory"),
            *("chat.ChatRules", "chat.Announcement", "chat.PlatformAnnouncement"),
        ),
    ),
    (
        _("Compliance"),
        (
            *("chat.Report", "chat.ModerationHit", "chat.ModerationWord", "chat.ModerationSettings"),
            *("tenants.Compliance", "tenants.LegalText"),
        ),
    ),
    (
        _("Tenants and their sites"),
        (
            *("tenants.Tenant", "tenants.Branding", "tenants.Domain", "lifecycle.DomainClaim", "tenants.MiniProgram"),
            *("tenants.SignInSettings", "tenants.SmsAccount", "tenants.Embedding", "lifecycle.Check"),
            *("lifecycle.OfferTemplate", "lifecycle.Opening", "lifecycle.ResellerToken", "lifecycle.TenantEvent"),
            *("lifecycle.TenantExport", "lifecycle.TenantDeletion"),
        ),
    ),
    (
        _("Resellers"),
        (
            *("tenants.Reseller", "tenants.ResellerApplication", "tenants.ResellerTerms", "tenants.TermsAcceptance"),
            *("billing.CommissionTerms", "billing.Commission", "billing.CommissionBack", "billing.Withdrawal"),
            "billing.PayoutBatch",
        ),
    ),
    (
        _("Staff and log"),
        (
            *("tenants.Notice", "tenants.StaffAnnouncement", "tenants.Membership", "tenants.StaffUser"),
            *("tenants.PlatformMembership", "tenants.StaffInvitation", "tenants.StaffRules", "tenants.ChangeEntry"),
        ),
    ),
)
MORE: Final = _("More")


def groups_of(apps: Iterable[Mapping[str, Any]], *, path: str) -> list[dict[str, Any]]:
    """Return the groups as unfold shows them, of the apps that a person may see (`AdminSite.get_app_list`).

    The group of the page at `path` is open, the others are folded.
    """
    left = {model["model"]._meta.label: model for app in apps for model in app["models"]}
    named = [(title, [left.pop(label) for label in labels if label in left]) for title, labels in GROUPS]
    return [
        {"title": title, "collapsible": True, "items": [_item(model, path) for model in models]}
        for title, models in [*named, (MORE, [*left.values()])]
        if models
    ]


def _item(model: Mapping[str, Any], path: str) -> dict[str, Any]:
    link = model["admin_url"] or model["add_url"]
    return {"title": model["name"], "link": link, "active": path.startswith(link), "has_permission": True}
