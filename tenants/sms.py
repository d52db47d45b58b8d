"""Text messages with codes: the contract of a provider, and whose account a tenant sends by.

SmsProvider      sends one code to one phone
ConsoleSms       writes it into the log, for whoever tries things out
provider_of()    the tenant's own account, else the platform's

    SmsFailedError    why a message did not go out; its text is for the log and holds no secret
"""

from typing import Protocol

import structlog
from django.conf import settings

from tenants.models import SmsAccount
from tenants.scope import TenantQuerySet
from tenants.sms_aliyun import AliyunSms
from tenants.sms_failure import SmsFailedError, SmsFailure

logger = structlog.get_logger(__name__)

__all__ = ["ConsoleSms", "SmsFailedError", "SmsFailure", "SmsProvider", "provider_by", "provider_of"]


class SmsProvider(Protocol):
    """Somebody who sends text messages."""

    def send(self, *, phone: str, code: str, language: str) -> None:
        """Send a code to a phone (as `tenants.login.normal_phone` has it); raise SmsFailedError."""


class ConsoleSms:
    """Writes codes into the log: nobody gets a message, and whoever reads the log gets in."""

    def send(self, *, phone: str, code: str, language: str) -> None:
        """Log a code."""
        logger.warning("sms_on_the_console", phone=phone, code=code, language=language)


def provider_of(tenant_id: int) -> SmsProvider | None:
    """Return what sends a tenant's text messages; None where nothing does. In the tenant's scope."""
    account = SmsAccount.objects.filter(tenant_id=tenant_id).first()
    if account is None:
        # The platform's row is outside every tenant's scope, so this names its owner itself.
        account = TenantQuerySet(SmsAccount).filter(tenant__isnull=True).first()
    if account is None or not account.is_enabled:
        return None
    return provider_by(account)


def provider_by(account: SmsAccount) -> SmsProvider:
    """Return what sends by an account."""
    if account.provider == SmsAccount.Provider.CONSOLE:
        return ConsoleSms()
    return AliyunSms(
        url=settings.ALIYUN_SMS_URL,
        access_key_id=account.access_key_id,
        access_key_secret=account.access_key_secret,
        sign_name=account.sign_name,
        templates={"": account.template_code, "en": account.template_code_en},
    )
