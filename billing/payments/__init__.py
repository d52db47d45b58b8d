"""Payment providers behind one contract: `provider_of` gives the one of a merchant account."""

from uuid_utils.compat import uuid7

from billing.models import Channel, MerchantAccount, Order
from billing.payments.alipay import Alipay
from billing.payments.provider import PaymentProvider
from billing.payments.stripe import StripePayments
from billing.payments.wechat import WeChatPay
from billing.payments.wechat_virtual import WeChatVirtual

__all__ = ["provider_of", "try_settings"]


def provider_of(account: MerchantAccount) -> PaymentProvider:
    """Return the provider that speaks for this merchant account."""
    match Channel(account.channel):
        case Channel.WECHAT:
            return WeChatPay(account)
        case Channel.WECHAT_VIRTUAL:
            return WeChatVirtual(account)
        case Channel.ALIPAY:
            return Alipay(account)
        case Channel.STRIPE:
            return StripePayments(account)


def try_settings(account: MerchantAccount) -> None:
    """Ask the provider for an order that does not exist; raise PaymentError if it does not say just that.

    What cannot be tried without a payment is the other way: whether its notifications will be believed.
    """
    number = uuid7().hex
    nothing = Order(
        tenant_id=account.tenant_id,
        out_trade_no=number,
        channel=account.channel,
        merchant_id=account.merchant_id,
        app_id=account.app_id,
        provider_ref=number,
    )
    provider = provider_of(account)
    provider.query(nothing)
    if isinstance(provider, StripePayments):
        provider.require_own_account()
