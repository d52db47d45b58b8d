"""Who: resellers, tenants and what identifies them, staff, end users."""

from tenants.models.enduser import AccessToken, EndUser, WeChatIdentity
from tenants.models.reseller import Reseller
from tenants.models.signup import ResellerApplication, ResellerTerms, TermsAcceptance
from tenants.models.staff import Membership, PlatformMembership, StaffUser
from tenants.models.tenant import Branding, Domain, MiniProgram, Tenant

__all__ = [
    "AccessToken",
    "Branding",
    "Domain",
    "EndUser",
    "Membership",
    "MiniProgram",
    "PlatformMembership",
    "Reseller",
    "ResellerApplication",
    "ResellerTerms",
    "StaffUser",
    "Tenant",
    "TermsAcceptance",
    "WeChatIdentity",
]
