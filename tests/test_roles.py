"""Roles get exactly their rights: docs/roles.md, the classes and the pages agree."""

import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.test import Client
from pytest_django import Settings

from tenants import rights, scope
from tenants.adminsite import tenant_site
from tenants.models import Membership
from tests.factories import host_of, make_staff, make_tenant
from tests.test_translations import registered

PAGE = Path(__file__).resolve().parent.parent / "docs/roles.md"


@pytest.mark.django_db
def test_the_page_says_what_the_classes_say() -> None:
    """`manage.py rights` prints the table that is wanted."""
    written = "".join(re.findall(r"^\|.*\n", PAGE.read_text("utf-8"), re.MULTILINE))
    assert written == rights.table()


@pytest.mark.django_db
@pytest.mark.parametrize("role", Membership.Role.values)
def test_the_pages_answer_as_the_classes_say(role: str, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    tenant = make_tenant()
    client = Client(headers={"host": host_of(tenant)})
    client.force_login(make_staff(tenant, role=role))
    found: dict[str, Any] = {}
    wanted: dict[str, Any] = {}
    index = client.get("/admin/").content.decode()
    for model, model_admin in registered(tenant_site).items():
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        found[base] = [client.get(base).status_code, client.get(f"{base}add/").status_code, f'"{base}"' in index]
        with_rights = rights_here(model_admin, role, tenant.pk)
        wanted[base] = [200 if with_rights.look else 403, 200 if with_rights.add else 403, with_rights.look]
    assert found == wanted


def rights_here(model_admin: Any, role: str, tenant_id: int) -> rights.Rights:
    with scope.tenant(tenant_id):
        return rights.rights_of(model_admin, role)
