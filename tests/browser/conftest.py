"""What the browser's tests share: the machine's Chromium, and one real stack that `manage.py up` has started."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from pytest_django.plugin import DjangoDbBlocker

from saas.local.client import BUILT
from saas.tests.local_machine import up
from tests.browser.visit import Stack, Tools, Visits
from tests.doubles.alipay import running_alipay
from tests.doubles.wechatpay import running_wechatpay
from tests.servers import database_url_of_this_test, free_port

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
# Of this process alone; and answers come from the built-in model, and from nowhere else.
NOT_INHERITED = ("DJANGO_ALLOW_ASYNC_UNSAFE", "OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shots", action="store_true", help="draw the pictures of docs/images anew")
    parser.addoption("--must-run", action="store_true", help="fail where something is missing, instead of skipping")


def missing(request: pytest.FixtureRequest, what: str) -> None:
    """Skip what needs something that this machine does not have; fail where that was said to be there."""
    if request.config.getoption("must_run"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def stack(
    request: pytest.FixtureRequest,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Stack]:
    """Start what `make run` starts, on this test's PostgreSQL and Valkey: model, web, worker, beat, demo data.

    Payment providers are doubles on this machine.
    """
    if CHROMIUM is None:
        missing(request, "no Chromium here: apt install chromium, or CHROMIUM=/path/to/it")
    if not (BUILT / "index.html").exists():
        missing(request, "the page is not built: make client")
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    with django_db_blocker.unblock(), running_wechatpay() as wechat, running_alipay() as alipay:
        own = {
            "DATABASE_URL": database_url_of_this_test(),
            "BANYAN_VAR": str(Path(os.environ["BANYAN_VAR"]) / "e2e"),
            "PORT": str(port),
            "WECHAT_PAY_API_URL": wechat.url,
            "ALIPAY_GATEWAY_URL": f"{alipay.url}/gateway.do",
        }
        with up({**inherited, **own}):
            yield Stack(port=port, wechat=wechat, alipay=alipay)


@pytest.fixture(scope="session")
def chromium(request: pytest.FixtureRequest, stack: Stack, django_db_blocker: DjangoDbBlocker) -> Iterator[Any]:
    """Run a browser."""
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415  not everywhere
    except ImportError:
        missing(request, "no playwright here: make e2e installs it")
    # Playwright's own loop runs in this thread while a test asks the database, one after the other.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP *.localhost 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        with django_db_blocker.unblock():
            connections.close_all()  # what was asked while a loop runs has connections of its own
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def visits(request: pytest.FixtureRequest, committed_db: None, chromium: Any, stack: Stack) -> Visits:
    """Open pages of the stack's tenants."""
    shots = Path("docs/images").resolve() if request.config.getoption("shots") else None
    return Visits(chromium=chromium, port=stack.port, shots=shots)


@pytest.fixture(scope="session")
def tools(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """Install axe and Lighthouse by their lock file, outside of the source."""
    try:
        return Tools.install(tmp_path_factory.mktemp("tools"), chromium=str(CHROMIUM))
    except OSError as problem:
        missing(request, f"axe and Lighthouse cannot be installed here: {problem}")
        raise
