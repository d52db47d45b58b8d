"""The admins' side bar: every kind of row has its group, and a person sees what they may see."""

import re

import pytest
from django.contrib import admin
from django.test import Client
from django.utils import translation

from tenants import sidebar
from tenants.adminsite import tenant_site
from tests.factories import host_of, make_operator, make_staff, make_tenant

LISTED = [label for _title, labels in sidebar.GROUPS for label in labels]


def test_every_kind_of_row_has_one_group() -> None:
    shown = {model._meta.label for site in (admin.site, tenant_site) for model in site._registry}  # noqa: SLF001  # no other way
    assert (len(LISTED), shown - set(LISTED), set(LISTED) - shown) == (len(set(LISTED)), set(), set())


@pytest.mark.django_db
@pytest.mark.parametrize("role", ["owner", "finance", "support", "content", "operator"])
def test_the_group_of_the_page_is_open_and_the_others_are_folded(role: str) -> None:
    tenant = make_tenant()
    host, staff = (host_of(tenant), make_staff(tenant, role=role)) if role != "operator" else ("localhost", None)
    client = Client(headers={"host": host, "accept-language": "en"})
    client.force_login(staff or make_operator())
    base = "/platform" if role == "operator" else "/admin"
    answer = client.get(f"{base}/tenants/notice/")
    groups = answer.context["sidebar_navigation"]
    with translation.override("en"):
        opened = [str(group["title"]) for group in groups if any(item["active"] for item in group["items"])]
    assert opened == ["Staff and log"]
    links = [item["link"] for group in groups for item in group["items"]]
    may = [model["admin_url"] for app in answer.context["available_apps"] for model in app["models"]]
    assert (sorted(links), len(links) > 5) == (sorted(may), True)
    # Folded by a word of unfold's own script, so that without it all of them are there.
    assert re.findall(r"navigationOpen: (true|false)", answer.content.decode()).count("true") == 1
