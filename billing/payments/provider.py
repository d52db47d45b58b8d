"""What every payment provider does for us, and the ways in which it can fail.

    PaymentError
    ├── NotificationRefusedError    a message that is not believed: not the provider's, too old, or not readable
    ├── ProviderAwayError           the provider did not answer, or its answer cannot be believed
    └── ProviderRefusedError        the provider understood the request and refused it

A provider knows orders and keys; it moves no money and writes no row: `billing.recharge` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from billing.models import Order


class PaymentError(Exception):
    """Something went wrong between a provider and us. Its text is for the log, and holds no secret."""


class NotificationRefusedError(PaymentError):
    """A notification that is not believed."""


class ProviderAwayError(PaymentError):
    """No answer, or none that can be believed: whether the provider did what it was asked to is not known."""


class ProviderRefusedError(PaymentError):
    """The provider refused; `code` is its own word."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the provider refuses: {code}")
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Payer:
    """What providers want to know of the person, besides the order: each way of paying needs another part."""

    address: str = ""
    openid: str = ""


@dataclass(frozen=True, kw_only=True)
class PaymentNotice:
    """A payment that the provider vouches for: the signature is verified, nothing else is compared yet.

    `amount` is in micro-yuan of `currency`; `event_id` is the provider's own, or made of the transaction's where we
    asked; `body_digest` is the SHA-256 of the bytes that were verified.
    """

    event_id: str
    out_trade_no: str
    transaction_id: str
    merchant_id: str
    app_id: str
    amount: int
    currency: str
    body_digest: str


class PaymentProvider(Protocol):
    """One merchant account at one provider. Every call may raise ProviderAwayError or ProviderRefusedError."""

    def create_payment(self, order: Order, *, payer: Payer, notify_url: str) -> dict[str, str]:
        """Announce an order; return what the client needs to pay. The same order may be announced again."""
        ...

    def parse_callback(self, *, body: bytes, headers: Mapping[str, str]) -> PaymentNotice:
        """Return the payment that a notification tells of; raise NotificationRefusedError."""
        ...

    def query(self, order: Order) -> PaymentNotice | None:
        """Return an order's payment; None if it is not paid."""
        ...

    def close(self, order: Order) -> bool:
        """Have the provider take no payment for an order any more; False if it has been paid."""
        ...
