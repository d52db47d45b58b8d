"""Amounts as people write them, in yuan; everywhere else an amount is an integer of micro-yuan."""

import re
from typing import Final

MICRO: Final = 1_000_000
_YUAN: Final = re.compile(r"(\d{1,9})(?:\.(\d{1,6}))?", re.ASCII)


def parse_yuan(text: str) -> int:
    """Return micro-yuan for "20" or "0.05"; ValueError for anything else, signs and exponents among it.

    Never a float: 0.1 is exact here.
    """
    match = _YUAN.fullmatch(text)
    if match is None:
        raise ValueError(f"not an amount in yuan, such as 20 or 0.05 (at most six decimals): {text!r}")
    whole, part = match.groups(default="")
    return int(whole) * MICRO + int(part.ljust(6, "0"))


def show_yuan(amount: int) -> str:
    """Return micro-yuan as yuan with at least two decimals, exactly: 20500000 is "20.50"."""
    whole, part = divmod(abs(amount), MICRO)
    decimals = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}{whole}.{decimals}"


def show_money(amount: int) -> str:
    """Return micro-yuan as people read a sum of money, the sign before the currency: -20500000 is "-¥20.50"."""
    return f"{'-' if amount < 0 else ''}¥{show_yuan(abs(amount))}"
