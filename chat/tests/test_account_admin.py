"""An upstream account's key in the admin: taken, kept where none was typed, and shown to nobody."""

import pytest
from cryptography.fernet import Fernet
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from chat.models import UpstreamAccount
from tenants import scope
from tenants.models import Membership
from tests.factories import host_of, make_operator, make_staff, make_tenant

KEY = "sk-nobody-may-see-this"

pytestmark = pytest.mark.django_db


def test_a_key_is_kept_and_shown_to_nobody(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    tenant = make_tenant()
    with scope.tenant(tenant.pk):
        account = UpstreamAccount.objects.create(tenant=tenant, name="x", base_url="https://a.example/v1", api_key=KEY)
    operator = Client(headers={"host": "localhost"})
    operator.force_login(make_operator())
    path = reverse("admin:chat_upstreamaccount_change", args=[account.pk])
    pages = [operator.get(path)]
    for role in Membership.Role.values:
        member = Client(headers={"host": host_of(tenant)})
        member.force_login(make_staff(tenant, role=role))
        pages.append(member.get(reverse("tenant_admin:chat_upstreamaccount_change", args=[account.pk])))
    shown = [page.content.decode() for page in pages]
    assert [("a.example" in page, KEY in page, "gAAAA" in page) for page in shown] == [(True, False, False)] * len(
        pages
    )
    body = {
        "tenant": str(tenant.pk),
        "name": "y",
        "base_url": "https://a.example/v1",
        "api_key": "",
        "is_enabled": "on",
    }
    for typed, kept in (("", KEY), ("sk-new", "sk-new")):
        assert operator.post(path, {**body, "api_key": typed}).status_code == 302
        with scope.tenant(tenant.pk):
            changed = UpstreamAccount.objects.get(pk=account.pk)
        assert (changed.name, changed.api_key) == ("y", kept)
