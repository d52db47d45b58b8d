"""Fixtures of every app's tests. The database and Redis are real; `make test` starts them and names their URLs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils.translation.reloader import translation_file_changed
from hypothesis import settings
from pytest_django.plugin import DjangoDbBlocker

from saas.local.translations import compile_catalogues

# Machines are small and noisy: an example that takes long is no failure.
settings.register_profile("banyan", deadline=None)
settings.load_profile("banyan")


def pytest_configure() -> None:
    """Compile the messages, which are not in git compiled, and have Django forget what it has read of them so far."""
    if compile_catalogues():
        translation_file_changed(sender=None, file_path=Path("django.mo"))


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None, django_db_blocker: DjangoDbBlocker, django_db_modify_db_settings: None
) -> Iterator[None]:
    """Make the test database, once for each process.

    pytest-django's own fixture makes it only where a test has the django_db mark, which `committed_db` does without.
    """
    from django.test.utils import setup_databases, teardown_databases  # noqa: PLC0415  settings are not ready here

    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False, aliases={"default": False}, serialized_aliases=set())
    yield
    with django_db_blocker.unblock():
        teardown_databases(made, verbosity=0)


@pytest.fixture
def committed_db(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let a test commit, for other threads and processes to see; nothing is rolled back or flushed.

    The ledger is append-only, so it cannot be emptied between tests: each test opens tenants of its own.
    """
    from django.db import connections  # noqa: PLC0415  as above

    with django_db_blocker.unblock():
        yield
        connections.close_all()


@pytest.fixture(scope="session")
def scripted_upstream() -> Iterator[Any]:
    """Run the scripted provider of models, in a process of its own."""
    from tests.doubles.upstream import upstream_process  # noqa: PLC0415  as above

    with upstream_process() as upstream:
        yield upstream


@pytest.fixture
def upstream_url(scripted_upstream: Any) -> str:
    """Return the scripted provider's base URL, for an upstream account."""
    return str(scripted_upstream.base_url)


@pytest.fixture
def upstream_requests(scripted_upstream: Any) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that returns the bodies the scripted provider has seen, in this whole session."""
    return lambda: [seen.body for seen in scripted_upstream.requests()]


@pytest.fixture(scope="session", params=["uvicorn", "daphne"])
def chat_port(
    request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[int]:
    """Run the application under a real server, on this process's test database; yield its port."""
    from tests.servers import web_server  # noqa: PLC0415  as above

    with django_db_blocker.unblock(), web_server(request.param) as port:
        yield port
