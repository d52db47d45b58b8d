"""What a provider brings to a tenant's address: verified by the provider, then settled by whom it concerns."""

from collections.abc import Mapping

from billing import recharge, refund
from billing.models import MerchantAccount, PaymentEvent
from billing.payments import provider_of
from billing.payments.provider import RefundNotice


def take_callback(
    *, account: MerchantAccount, body: bytes, headers: Mapping[str, str], query: Mapping[str, str]
) -> PaymentEvent | None:
    """Verify a notification and settle it; None for one that is the provider's and about no money.

    Raises NotificationRefusedError for one that is not the provider's, NotificationIgnoredError for one about nothing
    of ours, and another PaymentError where that cannot be told now.
    """
    notice = provider_of(account).parse_callback(body=body, headers=headers, query=query)
    if notice is None:
        return None
    if isinstance(notice, RefundNotice):
        return refund.settle_refund(account=account, notice=notice)
    return recharge.settle_payment(account=account, notice=notice)
