"""Billing's rows on both admin sites."""

from billing.admin import (
    applications,
    books,
    money,
    plans,
    prices,
    recharge,
    redeem,
    resale,
    rewards,
    statements,
    wallets,
)

__all__ = [
    "applications",
    "books",
    "money",
    "plans",
    "prices",
    "recharge",
    "redeem",
    "resale",
    "rewards",
    "statements",
    "wallets",
]
