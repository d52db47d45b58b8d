"""A template of two models on the scripted upstream, and resellers to open tenants from it."""

from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet
from pytest_django import Settings

from chat.models import UpstreamAccount
from lifecycle.models import OfferTemplate, TemplateModel
from tenants import resolve, scope
from tests.factories import YUAN, make_price, unique

WHOLESALE = (YUAN, YUAN // 2, 3 * YUAN)


def make_template(*, upstream_url: str = "http://127.0.0.1:1/v1", models: int = 1, **fields: object) -> OfferTemplate:
    """Return a template whose models cost ¥1, ¥0.50 and ¥3 a million wholesale; it is not the default one."""
    with scope.platform("a test's template"):
        slug = unique("template")
        template = OfferTemplate.objects.create(**{"slug": slug, "name": slug, **fields})
        account = UpstreamAccount.objects.create(name=slug, base_url=upstream_url, api_key="sk-test-upstream-key")
        for number in range(models):
            sku = unique("sku")
            make_price("cost", sku=sku, rates=(YUAN // 2, YUAN // 4, YUAN * 3 // 2))
            make_price("wholesale", sku=sku, rates=WHOLESALE)
            TemplateModel.objects.create(
                template=template,
                slug=f"model-{number}",
                name=f"Model {number}",
                sku=sku,
                account=account,
                upstream_model="plain",
                position=number,
            )
    return template


@pytest.fixture(autouse=True)
def _life(settings: Settings) -> Iterator[None]:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.TENANT_DOMAIN = "example.com"
    resolve.forget()
    yield
    resolve.forget()
