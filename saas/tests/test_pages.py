"""The first page of each kind of host."""

import pytest
from django.test import Client

from tenants import scope
from tenants.models import Branding
from tests.factories import host_of, make_tenant

pytestmark = pytest.mark.django_db


def test_a_tenants_host_shows_its_own_brand() -> None:
    ours, theirs = make_tenant(), make_tenant()
    with scope.tenant(ours.pk):
        Branding.objects.filter(tenant=ours).update(title="Ours <b>", primary_color="#123456", slogan="Hello")
    page = Client(headers={"Host": host_of(ours)}).get("/").content.decode()
    assert "<h1>Ours &lt;b&gt;</h1>" in page
    assert "--brand: #123456" in page
    assert f"http://{host_of(ours)}/api/chat/stream" in page
    assert theirs.name not in page


def test_a_platform_host_leads_to_the_operators_admin() -> None:
    reply = Client(headers={"Host": "localhost"}).get("/")
    assert (reply.status_code, reply["Location"]) == (302, "/platform/")


def test_an_unknown_host_shows_nobody() -> None:
    assert Client(headers={"Host": "nobody.example.com"}).get("/").status_code == 404
