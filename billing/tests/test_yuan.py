import pytest

from billing.yuan import parse_yuan, show_money, show_yuan


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("20", 20_000_000),
        ("0.1", 100_000),
        ("0.000001", 1),
        ("999999999.999999", 999_999_999_999_999),
        ("0", 0),
    ],
)
def test_yuan_are_read_exactly(text: str, amount: int) -> None:
    assert parse_yuan(text) == amount


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "NaN", "Infinity", "1e3", "1,5", "1.", ".5", "0.0000001", "1000000000", "١", " 1", "1\n"]
)
def test_anything_else_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount in yuan"):
        parse_yuan(text)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(20_500_000, "20.50"), (1, "0.000001"), (0, "0.00"), (-1_230_000, "-1.23"), (5_000_000, "5.00")],
)
def test_yuan_are_shown_exactly(amount: int, text: str) -> None:
    assert show_yuan(amount) == text


@pytest.mark.parametrize(
    ("amount", "text"), [(20_500_000, "¥20.50"), (-1, "-¥0.000001"), (0, "¥0.00"), (-1_230_000, "-¥1.23")]
)
def test_the_sign_of_money_stands_before_the_currency(amount: int, text: str) -> None:
    assert show_money(amount) == text
