"""Two resellers who must never see each other's."""

from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet
from django.utils import translation
from pytest_django import Settings

from billing.tests.portal.trade import Trade, open_trade


@pytest.fixture(autouse=True)
def _encryption(settings: Settings) -> Iterator[None]:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    with translation.override("en"):
        yield


@pytest.fixture
def trade(db: None) -> Trade:
    return open_trade()


@pytest.fixture
def other(db: None) -> Trade:
    return open_trade()
