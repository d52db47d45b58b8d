"""Fixtures of every app's tests. The database and Redis are real; `make test` starts them and names their URLs."""

from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker


@pytest.fixture
def committed_db(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let a test commit, for other threads and processes to see; nothing is rolled back or flushed.

    The ledger is append-only, so it cannot be emptied between tests: each test opens tenants of its own.
    """
    with django_db_blocker.unblock():
        yield
