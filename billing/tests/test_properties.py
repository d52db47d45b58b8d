"""Whatever happens in whatever order, at whatever prices: the books are right after each step.

The machine's classes are in `billing.tests.machine`; here they are put together: everything at once, and what has to do
with each other once more without the rest, since each run has only so many steps.

`PROPERTY_EXAMPLES` is how many runs of each are tried, 7 unless it says otherwise; each has up to 30 steps.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from billing.payments.clients import close_client
from billing.tests.machine.answers import Answers
from billing.tests.machine.books import Books, Credits
from billing.tests.machine.recharges import Codes, Recharges
from billing.tests.machine.resale import Resale, Wallets, Withdrawals
from billing.tests.machine.rewards import Rewards
from tests.doubles.wechatpay import WeChatPayDouble, running_wechatpay
from tests.factories import make_operator, make_staff


class Till(Credits, Answers, Recharges, Codes):
    """What people pay and use."""


class Returns(Rewards):
    """What goes back, with what was given for it."""


class Grove(Withdrawals, Wallets):
    """What resellers earn, lose and take out."""


class Everything(Credits, Codes, Rewards, Withdrawals, Wallets):
    """Everything at once."""


@pytest.fixture
def wechat(settings: Any) -> Iterator[WeChatPayDouble]:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    with running_wechatpay() as double:
        settings.WECHAT_PAY_API_URL = double.url
        yield double
        close_client(double.url)  # the port may come again


@pytest.mark.django_db
@pytest.mark.parametrize("machine", [Till, Returns, Grove, Everything])
def test_the_books_are_right_whatever_happens(wechat: WeChatPayDouble, machine: type[Books]) -> None:
    Books.wechat = wechat
    Resale.clerk, Resale.operator = make_staff(), make_operator()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("PROPERTY_EXAMPLES", "7")),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
