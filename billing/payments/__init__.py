"""Payment providers behind one contract: `provider_of` gives the one of a merchant account."""

from billing.models import Channel, MerchantAccount
from billing.payments.provider import PaymentProvider
from billing.payments.wechat import WeChatPay
from billing.payments.wechat_virtual import WeChatVirtual

__all__ = ["provider_of"]


def provider_of(account: MerchantAccount) -> PaymentProvider:
    """Return the provider that speaks for this merchant account."""
    match Channel(account.channel):
        case Channel.WECHAT:
            return WeChatPay(account)
        case Channel.WECHAT_VIRTUAL:
            return WeChatVirtual(account)
        case other:
            raise NotImplementedError(other)
