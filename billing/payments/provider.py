"""What every payment provider does for us, and the ways in which it can fail.

    PaymentError
    ├── NotificationRefusedError    a message that is not believed: not the provider's, too old, or not readable
    ├── PayerUnknownError           the provider wants the payer to log in there anew
    ├── NotificationIgnoredError    a message that is believed, and tells of nothing that concerns our books
    ├── ProviderAwayError           the provider did not answer, or its answer cannot be believed
    └── ProviderRefusedError        the provider understood the request and refused it

A provider knows orders and keys; it moves no money and writes no row: `billing.recharge` and `billing.refund` do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

from billing.models import Order, Refund

# What `create_payment` names the provider's own name of an order.
REFERENCE: Final = "reference"


class PaymentError(Exception):
    """Something went wrong between a provider and us. Its text is for the log, and holds no secret."""


class NotificationRefusedError(PaymentError):
    """A notification that is not believed."""


class PayerUnknownError(PaymentError):
    """The payer's log-in with the provider is missing or over; nothing was given out that could be paid."""


class NotificationIgnoredError(PaymentError):
    """A notification that is believed and tells of nothing of ours: the provider need not send it again."""


class ProviderAwayError(PaymentError):
    """No answer, or none that can be believed: whether the provider did what it was asked to is not known."""


class ProviderRefusedError(PaymentError):
    """The provider refused; `code` is its own word."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the provider refuses: {code}")
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Payer:
    """What providers want to know of the person, besides the order: each way of paying needs another part.

    `return_url` is where a browser comes back to after paying on the provider's page.
    """

    address: str = ""
    openid: str = ""
    session_key: str = field(default="", repr=False)
    return_url: str = ""


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


@dataclass(frozen=True, kw_only=True)
class RefundNotice:
    """What became of a refund, vouched for by the provider as a payment is; `amount` and `event_id` as there.

    `out_refund_no` is ours, and empty where the provider refunded on its own account (`forced`: Apple, a charge-back);
    then `refund_id`, the provider's number, is all that tells two of them apart. `app_id` is empty where the provider
    does not tell it. "pending" is everything that may yet end either way.
    """

    event_id: str
    out_trade_no: str
    out_refund_no: str
    refund_id: str
    merchant_id: str
    app_id: str
    amount: int
    currency: str
    state: Literal["pending", "done", "failed"]
    forced: bool
    body_digest: str


Notice = PaymentNotice | RefundNotice


@dataclass(frozen=True, kw_only=True)
class BillLine:
    """A line of a provider's bill of a day: a payment (`amount` above 0) or a refund (below 0), micro-yuan."""

    out_trade_no: str
    out_refund_no: str
    transaction_id: str
    amount: int


class Reply(NamedTuple):
    """An HTTP answer to a notification."""

    status: int
    body: str
    content_type: str


class PaymentProvider(Protocol):
    """One merchant account at one provider. Every call may raise ProviderAwayError or ProviderRefusedError."""

    def create_payment(self, order: Order, *, payer: Payer, notify_url: str) -> dict[str, str]:
        """Announce an order; return what the client needs to pay. The same order may be announced again.

        Under `REFERENCE` stands the provider's own name of the order if it cannot be asked for by ours: it is kept as
        the order's `provider_ref`, and the client does not get it.
        """
        ...

    def parse_callback(self, *, body: bytes, headers: Mapping[str, str], query: Mapping[str, str]) -> Notice | None:
        """Return the payment or refund that a notification tells of; `query` is the address's. None: about neither.

        Raises NotificationRefusedError or NotificationIgnoredError, and may ask the provider for what it leaves out.
        """
        ...

    def reply(self, *, status: int, why: str = "") -> Reply:
        """Return the answer to a notification in the provider's form: taken (200, no `why`), or not."""
        ...

    def query(self, order: Order) -> PaymentNotice | None:
        """Return an order's payment; None if it is not paid."""
        ...

    def close(self, order: Order) -> bool:
        """Have the provider take no payment for an order any more; False if it has been paid."""
        ...

    def refund(self, refund: Refund, *, notify_url: str) -> RefundNotice:
        """Ask for a refund, or ask again for the same one: the provider pays `out_refund_no` back once."""
        ...

    def query_refund(self, refund: Refund) -> RefundNotice | None:
        """Return what became of a refund; None if the provider does not know it."""
        ...

    def bill(self, day: date) -> list[BillLine]:
        """Return the provider's bill of a day, in the provider's time zone (China's)."""
        ...


@runtime_checkable
class ProvesAddress(Protocol):
    """A provider that asks whether an address is ours, by GET, before it sends anything there."""

    def prove_address(self, query: Mapping[str, str]) -> str:
        """Return what the provider wants to read; raise NotificationRefusedError."""
        ...


@runtime_checkable
class WantsDelivery(Protocol):
    """A provider that wants to be told that what was paid for was given out."""

    def confirm_delivery(self, order: Order) -> None:
        """Say so, for an order whose notification did not arrive: the answer to one says so itself."""
        ...
