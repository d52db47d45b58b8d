"""Who: resellers, tenants and what identifies them, staff, end users."""

from tenants.models.avatar import Avatar
from tenants.models.enduser import AccessToken, EndUser, WeChatIdentity
from tenants.models.invitation import StaffInvitation
from tenants.models.job import ImportJob
from tenants.models.notice import Notice, NoticesSeen, StaffAnnouncement
from tenants.models.reseller import Reseller
from tenants.models.security import ChangeEntry, RecoveryCode, SecondFactor, StaffRules, StaffSession
from tenants.models.signin import AccountDeletion, OneTimeCode, SignInSettings, SmsAccount, WeChatTrip
from tenants.models.signup import ResellerApplication, ResellerTerms, TermsAcceptance
from tenants.models.site import Compliance, Embedding, LegalText
from tenants.models.staff import Membership, PlatformMembership, StaffUser
from tenants.models.tenant import Branding, Domain, MiniProgram, Tenant

__all__ = [
    "AccessToken",
    "AccountDeletion",
    "Avatar",
    "Branding",
    "ChangeEntry",
    "Compliance",
    "Domain",
    "Embedding",
    "EndUser",
    "ImportJob",
    "LegalText",
    "Membership",
    "MiniProgram",
    "Notice",
    "NoticesSeen",
    "OneTimeCode",
    "PlatformMembership",
    "RecoveryCode",
    "Reseller",
    "ResellerApplication",
    "ResellerTerms",
    "SecondFactor",
    "SignInSettings",
    "SmsAccount",
    "StaffAnnouncement",
    "StaffInvitation",
    "StaffRules",
    "StaffSession",
    "StaffUser",
    "Tenant",
    "TermsAcceptance",
    "WeChatIdentity",
    "WeChatTrip",
]
