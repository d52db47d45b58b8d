"""Payment providers behind one contract: `provider_of` gives the one of a merchant account."""

from billing.models import Channel, MerchantAccount
from billing.payments.provider import PaymentProvider
from billing.payments.wechat import WeChatPay

__all__ = ["provider_of"]


def provider_of(account: MerchantAccount) -> PaymentProvider:
    """Return the provider that speaks for this merchant account."""
    match Channel(account.channel):
        case Channel.WECHAT:
            return WeChatPay(account)
        case other:
            raise NotImplementedError(other)
